-- The first jobs of every size.
--
-- KEYS[1]  string  epoch marker
-- KEYS[2]  set     numbers of GPUs that a queue exists for; the queues themselves are ARGV[3] .. number
-- ARGV[1]  expected epoch; empty: any
-- ARGV[2]  how many of each size
-- ARGV[3]  prefix of the queue keys
-- Answers {gpus, 'member score member score ...', gpus, ...}, or COLD. One text per size, because a client
-- parses one long string much faster than hundreds of short ones.
local gate = redis.call('GET', KEYS[1])
if not gate or (ARGV[1] ~= '' and gate ~= ARGV[1]) then
  return 'COLD'
end
local answer = {}
for _, gpus in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local first = redis.call('ZRANGE', ARGV[3] .. gpus, 0, tonumber(ARGV[2]) - 1, 'WITHSCORES')
  if #first > 0 then
    answer[#answer + 1] = gpus
    answer[#answer + 1] = table.concat(first, ' ')
  end
end
return answer
