-- Ends the leases of one token, and only its own.
--
-- KEYS[1]   string  epoch marker
-- KEYS[2..] zset    leases: member `token:share`
-- ARGV[1]   expected epoch; empty: any
-- ARGV[2]   fencing token
-- Answers OK, or COLD. The leases go in both cases.
for i = 2, #KEYS do
  for _, entry in ipairs(redis.call('ZRANGE', KEYS[i], 0, -1)) do
    if string.match(entry, '^(.*):%-?%d+$') == ARGV[2] then
      redis.call('ZREM', KEYS[i], entry)
    end
  end
end
local gate = redis.call('GET', KEYS[1])
if not gate or (ARGV[1] ~= '' and gate ~= ARGV[1]) then
  return 'COLD'
end
return 'OK'
