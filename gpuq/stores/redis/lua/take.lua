-- Starts an attempt in Redis: the job leaves the queue and all its GPUs are leased, or nothing happens.
--
-- KEYS[1]   string  epoch marker
-- KEYS[2]   zset    queue of the job's size: member is the padded job id
-- KEYS[3]   set     numbers of GPUs that a queue exists for
-- KEYS[4]   set     UUIDs of this node's GPUs that were ever leased
-- KEYS[5..] zset    lease of one GPU: member `token:share` (MiB, -1 alone), score its end in ms of Redis' clock
-- ARGV[1]   expected epoch; empty: any
-- ARGV[2]   the job's member
-- ARGV[3]   fencing token of the attempt
-- ARGV[4]   how long the leases last, ms
-- ARGV[5]   tokens of attempts that are over, each followed by a comma: their leases here make way
-- ARGV[6]   1: the job may not be in the queue yet, and is taken all the same
-- ARGV[7..] for each lease: share, what shares may add up to, UUID
-- Answers TAKEN (also when this token took it before: a repeated call), MISSING, BUSY or COLD.
local gate = redis.call('GET', KEYS[1])
if not gate or (ARGV[1] ~= '' and gate ~= ARGV[1]) then
  return 'COLD'
end
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local over = {}
for token in string.gmatch(ARGV[5], '([^,]+),') do
  over[token] = true
end
local busy, own, before, ended = false, 0, {}, {}
for i = 5, #KEYS do
  local at = 7 + (i - 5) * 3
  local share, total = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  local used, others, alone = 0, false, false
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', string.format('%.0f', now))
  for _, entry in ipairs(redis.call('ZRANGE', KEYS[i], 0, -1)) do
    local token, held = string.match(entry, '^(.*):(%-?%d+)$')
    held = tonumber(held)
    if token == ARGV[3] then
      own = own + 1
      before[i] = entry
    elseif over[token] then
      ended[#ended + 1] = { KEYS[i], entry }
    elseif held < 0 then
      alone = true
    else
      others = true
      used = used + held
    end
  end
  if alone or (share < 0 and others) or (share >= 0 and used + share > total) then
    busy = true
  end
end
if not redis.call('ZSCORE', KEYS[2], ARGV[2]) and (ARGV[6] ~= '1' or own > 0) then
  if own > 0 and own == #KEYS - 4 then
    return 'TAKEN'
  end
  return 'MISSING'
end
if busy then
  return 'BUSY'
end
-- First the removal: a Redis that is out of memory refuses a script's first write only if it makes data grow.
redis.call('ZREM', KEYS[2], ARGV[2])
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('SREM', KEYS[3], string.match(KEYS[2], '(%d+)$'))
end
for _, lease in ipairs(ended) do
  redis.call('ZREM', lease[1], lease[2])
end
local ttl = tonumber(ARGV[4])
for i = 5, #KEYS do
  local at = 7 + (i - 5) * 3
  if before[i] then
    redis.call('ZREM', KEYS[i], before[i])
  end
  redis.call('ZADD', KEYS[i], string.format('%.0f', now + ttl), ARGV[3] .. ':' .. ARGV[at])
  if redis.call('PTTL', KEYS[i]) < ttl then
    redis.call('PEXPIRE', KEYS[i], ttl)
  end
  redis.call('SADD', KEYS[4], ARGV[at + 2])
end
return 'TAKEN'
