-- Starts a rebuild: the store is cold from here until open.lua, and the queue is empty. Leases stay.
--
-- KEYS[1]  string  epoch marker; goes away
-- KEYS[2]  string  rebuild marker; set, so that a flush or another rebuild in the meantime is noticed
-- KEYS[3]  set     numbers of GPUs that a queue exists for; the queues themselves are ARGV[2] .. number
-- ARGV[1]  epoch of this rebuild
-- ARGV[2]  prefix of the queue keys
-- Answers OK.
redis.call('DEL', KEYS[1])
for _, gpus in ipairs(redis.call('SMEMBERS', KEYS[3])) do
  redis.call('UNLINK', ARGV[2] .. gpus)
end
redis.call('DEL', KEYS[3])
redis.call('SET', KEYS[2], ARGV[1])
return 'OK'
