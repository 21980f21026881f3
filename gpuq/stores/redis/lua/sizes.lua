-- How many jobs wait, by number of GPUs.
--
-- KEYS[1]  string  epoch marker
-- KEYS[2]  set     numbers of GPUs that a queue exists for; the queues themselves are ARGV[2] .. number
-- ARGV[1]  expected epoch; empty: any
-- ARGV[2]  prefix of the queue keys
-- Answers {gpus, count, gpus, count, ...} without empty queues, or COLD.
local gate = redis.call('GET', KEYS[1])
if not gate or (ARGV[1] ~= '' and gate ~= ARGV[1]) then
  return 'COLD'
end
local answer = {}
for _, gpus in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local count = redis.call('ZCARD', ARGV[2] .. gpus)
  if count > 0 then
    answer[#answer + 1] = gpus
    answer[#answer + 1] = count
  end
end
return answer
