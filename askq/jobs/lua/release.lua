-- release: give back the lease on one lane of one shard, if it is ours.
--
-- KEYS[1] lease
-- ARGV[1] execution
-- Returns 1 if it was ours, else 0. Leaves nothing behind.

if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
