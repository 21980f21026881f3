-- Who holds the GPUs of a node.
--
-- KEYS[1]  string  epoch marker
-- KEYS[2]  set     UUIDs of this node's GPUs that were ever leased; the leases themselves are ARGV[2] .. UUID
-- ARGV[1]  expected epoch; empty: any
-- ARGV[2]  prefix of the node's lease keys (zset: member `token:share`, score its end in ms of Redis' clock)
-- Answers {uuid, token, uuid, token, ...} of leases that have not expired, or COLD.
local gate = redis.call('GET', KEYS[1])
if not gate or (ARGV[1] ~= '' and gate ~= ARGV[1]) then
  return 'COLD'
end
local clock = redis.call('TIME')
local now = string.format('(%.0f', tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000))
local answer = {}
for _, uuid in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  for _, entry in ipairs(redis.call('ZRANGEBYSCORE', ARGV[2] .. uuid, now, '+inf')) do
    answer[#answer + 1] = uuid
    answer[#answer + 1] = string.match(entry, '^(.*):%-?%d+$')
  end
end
return answer
