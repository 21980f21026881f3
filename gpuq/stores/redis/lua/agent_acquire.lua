-- Makes this agent the node's only one.
--
-- KEYS[1]  string  token of the node's agent, with a TTL
-- ARGV[1]  this agent's token
-- ARGV[2]  TTL, ms
-- Answers 1, also when this token has it already; 0 when another agent does.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
