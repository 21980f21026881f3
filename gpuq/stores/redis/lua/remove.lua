-- Takes jobs out of the queue. Absent ones are ignored.
--
-- KEYS[1]   string  epoch marker
-- KEYS[2]   set     numbers of GPUs that a queue exists for
-- KEYS[3..] zset    queues, one per number of GPUs
-- ARGV[1]   expected epoch; empty: any
-- ARGV[2..] for each queue `member member ...`
-- Answers OK, or COLD. The members go in both cases: a rebuild may have read them before they left.
for i = 3, #KEYS do
  local slice = {}
  for member in string.gmatch(ARGV[i - 1], '%S+') do
    slice[#slice + 1] = member
    if #slice >= 1000 then
      redis.call('ZREM', KEYS[i], unpack(slice))
      slice = {}
    end
  end
  if #slice > 0 then
    redis.call('ZREM', KEYS[i], unpack(slice))
  end
  if redis.call('EXISTS', KEYS[i]) == 0 then
    redis.call('SREM', KEYS[2], string.match(KEYS[i], '(%d+)$'))
  end
end
local gate = redis.call('GET', KEYS[1])
if not gate or (ARGV[1] ~= '' and gate ~= ARGV[1]) then
  return 'COLD'
end
return 'OK'
