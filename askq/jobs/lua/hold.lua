-- hold: take or renew the lease on one lane of one shard.
--
-- KEYS[1] lease
-- ARGV[1] execution   ARGV[2] milliseconds
-- Returns 1 if the lease is ours now, else 0. Leaves behind: the lease.

local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
