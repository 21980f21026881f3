-- Undoes take.lua: the leases of this token go and the job is back in its place.
--
-- KEYS[1]   string  epoch marker
-- KEYS[2]   zset    queue of the job's size
-- KEYS[3]   set     numbers of GPUs that a queue exists for
-- KEYS[4..] zset    leases: member `token:share`
-- ARGV[1]   expected epoch; empty: any
-- ARGV[2]   fencing token of the attempt
-- ARGV[3]   the job's member
-- ARGV[4]   its score; a job that is in the queue already keeps the score it has there
-- Answers OK, or COLD: then the leases are gone but the job is not put back, the rebuild does that.
for i = 4, #KEYS do
  for _, entry in ipairs(redis.call('ZRANGE', KEYS[i], 0, -1)) do
    if string.match(entry, '^(.*):%-?%d+$') == ARGV[2] then
      redis.call('ZREM', KEYS[i], entry)
    end
  end
end
local gate = redis.call('GET', KEYS[1])
if not gate or (ARGV[1] ~= '' and gate ~= ARGV[1]) then
  return 'COLD'
end
redis.call('ZADD', KEYS[2], 'NX', ARGV[4], ARGV[3])
redis.call('SADD', KEYS[3], string.match(KEYS[2], '(%d+)$'))
return 'OK'
