-- Sets the leases of an attempt that is known to live, whoever else is noted there and whatever the epoch.
--
-- KEYS[1]   set   UUIDs of this node's GPUs that were ever leased
-- KEYS[2..] zset  leases: member `token:share` (MiB, -1 alone), score its end in ms of Redis' clock
-- ARGV[1]   fencing token of the attempt
-- ARGV[2]   how long the leases last, ms
-- ARGV[3..] for each lease: share, UUID
-- Answers OK.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local ttl = tonumber(ARGV[2])
for i = 2, #KEYS do
  local at = 3 + (i - 2) * 2
  for _, entry in ipairs(redis.call('ZRANGE', KEYS[i], 0, -1)) do
    if string.match(entry, '^(.*):%-?%d+$') == ARGV[1] then
      redis.call('ZREM', KEYS[i], entry)
    end
  end
  redis.call('ZADD', KEYS[i], string.format('%.0f', now + ttl), ARGV[1] .. ':' .. ARGV[at])
  if redis.call('PTTL', KEYS[i]) < ttl then
    redis.call('PEXPIRE', KEYS[i], ttl)
  end
  redis.call('SADD', KEYS[1], ARGV[at + 1])
end
return 'OK'
