-- Ends a rebuild: from here on calls are answered. Wakes the agents.
--
-- KEYS[1]  string  epoch marker; set
-- KEYS[2]  string  rebuild marker; goes away
-- ARGV[1]  the epoch
-- ARGV[2]  1 when a rebuild of this epoch must be under way, 0 when the store may also be fresh
-- ARGV[3]  channel to wake
-- Answers OK, also when it is open with this epoch already; COLD when the rebuild was lost to a flush or
-- when a rebuild with another epoch is under way.
local rebuild = redis.call('GET', KEYS[2])
if not rebuild and redis.call('GET', KEYS[1]) == ARGV[1] then
  return 'OK'
end
if rebuild ~= ARGV[1] and (rebuild or ARGV[2] == '1') then
  return 'COLD'
end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
redis.call('PUBLISH', ARGV[3], '- queue')
return 'OK'
