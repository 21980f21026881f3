-- Gives the node up, if it is this agent's.
--
-- KEYS[1]  string  token of the node's agent, with a TTL
-- ARGV[1]  this agent's token
-- Answers 1 when it was, 0 when it was not.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('DEL', KEYS[1])
return 1
