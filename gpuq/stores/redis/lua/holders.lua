-- Who holds the GPUs of a node.
--
-- KEYS[1]  string  epoch marker
-- KEYS[2]  set     UUIDs of this node's GPUs that were ever leased; the leases themselves are ARGV[2] .. UUID
-- ARGV[1]  expected epoch; empty: any
-- ARGV[2]  prefix of the node's lease keys (zset: member `token:share`, score its end in ms of Redis' clock)
-- ARGV[3..] UUIDs that are looked at whatever the set says, which somebody may have removed
-- Answers {uuid, token, uuid, token, ...} of leases that have not expired, or COLD.
local gate = redis.call('GET', KEYS[1])
if not gate or (ARGV[1] ~= '' and gate ~= ARGV[1]) then
  return 'COLD'
end
local clock = redis.call('TIME')
local now = string.format('(%.0f', tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000))
local answer = {}
local uuids, seen = redis.call('SMEMBERS', KEYS[2]), {}
for _, uuid in ipairs(uuids) do
  seen[uuid] = true
end
for i = 3, #ARGV do
  if not seen[ARGV[i]] then
    uuids[#uuids + 1] = ARGV[i]
  end
end
for _, uuid in ipairs(uuids) do
  for _, entry in ipairs(redis.call('ZRANGEBYSCORE', ARGV[2] .. uuid, now, '+inf')) do
    answer[#answer + 1] = uuid
    answer[#answer + 1] = string.match(entry, '^(.*):%-?%d+$')
  end
end
return answer
