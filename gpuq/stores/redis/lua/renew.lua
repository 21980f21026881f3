-- Renews everything that a node holds.
--
-- KEYS[1]   string  epoch marker
-- KEYS[2..] zset    leases, those of the first token first: member `token:share`, score its end in ms
-- ARGV[1]   expected epoch; empty: any
-- ARGV[2]   how long the leases last from now, ms
-- ARGV[3..] for each token: the token, how many leases
-- Answers {OK or COLD, token, ...}: the tokens of which a lease had expired, was never there, or is another's.
-- What is still there is renewed in every case, also for those tokens and while the store is cold: its
-- holder lives.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local ttl = tonumber(ARGV[2])
local ends = string.format('%.0f', now + ttl)
local gate = redis.call('GET', KEYS[1])
local answer = {'OK'}
if not gate or (ARGV[1] ~= '' and gate ~= ARGV[1]) then
  answer[1] = 'COLD'
end
local i = 2
for a = 3, #ARGV, 2 do
  local token, lost = ARGV[a], false
  for _ = 1, tonumber(ARGV[a + 1]) do
    local found = false
    for _, entry in ipairs(redis.call('ZRANGEBYSCORE', KEYS[i], string.format('(%.0f', now), '+inf')) do
      if string.match(entry, '^(.*):%-?%d+$') == token then
        found = true
        redis.call('ZADD', KEYS[i], ends, entry)
      end
    end
    if not found then
      lost = true
    elseif redis.call('PTTL', KEYS[i]) < ttl then
      redis.call('PEXPIRE', KEYS[i], ttl)
    end
    i = i + 1
  end
  if lost then
    answer[#answer + 1] = token
  end
end
return answer
