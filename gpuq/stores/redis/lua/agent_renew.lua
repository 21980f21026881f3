-- Keeps the node for this agent.
--
-- KEYS[1]  string  token of the node's agent, with a TTL
-- ARGV[1]  this agent's token
-- ARGV[2]  TTL from now, ms
-- Answers 1; 0 when the key has expired or is another agent's.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
