-- Puts jobs into the queue and wakes the agents.
--
-- KEYS[1]   string  gate: the epoch marker, or during a rebuild the rebuild marker
-- KEYS[2]   set     numbers of GPUs that a queue exists for
-- KEYS[3..] zset    queues, one per number of GPUs: member is the padded job id, score its place in line
-- ARGV[1]   what the gate must say; empty: anything, as long as it is there
-- ARGV[2]   channel to wake, or empty for nobody
-- ARGV[3..] for each queue `score member score member ...`
-- Answers OK, or COLD with nothing added (the agents are woken all the same: they must rebuild).
if ARGV[2] ~= '' then
  redis.call('PUBLISH', ARGV[2], '- queue')
end
local gate = redis.call('GET', KEYS[1])
if not gate or (ARGV[1] ~= '' and gate ~= ARGV[1]) then
  return 'COLD'
end
for i = 3, #KEYS do
  -- First, so that whoever looks for jobs meets what is in the way of the queue itself.
  redis.call('SADD', KEYS[2], string.match(KEYS[i], '(%d+)$'))
  -- In slices, because Lua's stack takes only some thousand values at once.
  local slice = {}
  for score, member in string.gmatch(ARGV[i], '(%S+) (%S+)') do
    slice[#slice + 1] = score
    slice[#slice + 1] = member
    if #slice >= 1000 then
      redis.call('ZADD', KEYS[i], unpack(slice))
      slice = {}
    end
  end
  if #slice > 0 then
    redis.call('ZADD', KEYS[i], unpack(slice))
  end
end
return 'OK'
