-- Starts a rebuild: the store is cold from here until open.lua, and the queue is empty. Leases stay.
--
-- KEYS[1]  string  epoch marker; goes away
-- KEYS[2]  string  rebuild marker; set, so that a flush or another rebuild in the meantime is noticed
-- KEYS[3]  set     numbers of GPUs that a queue exists for; the queues themselves are ARGV[2] .. number
-- KEYS[4]  string  `id text` of the installation whose namespace this is; set
-- ARGV[1]  epoch of this rebuild
-- ARGV[2]  prefix of the queue keys
-- ARGV[3]  id of the installation that rebuilds; empty: it is not asked whose the namespace is
-- ARGV[4]  the text to go with it
-- ARGV[5]  1: the namespace is this installation's, whatever stands there
-- Answers OK, or the id and text of another installation, with nothing done.
if ARGV[3] ~= '' then
  local owner = redis.call('GET', KEYS[4])
  if owner and ARGV[5] ~= '1' and string.match(owner, '^%S*') ~= ARGV[3] then
    return owner
  end
  redis.call('SET', KEYS[4], ARGV[3] .. ' ' .. ARGV[4])
end
redis.call('DEL', KEYS[1])
for _, gpus in ipairs(redis.call('SMEMBERS', KEYS[3])) do
  redis.call('UNLINK', ARGV[2] .. gpus)
end
redis.call('DEL', KEYS[3])
redis.call('SET', KEYS[2], ARGV[1])
return 'OK'
