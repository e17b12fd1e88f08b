-- witness: leave the id of a run whose creator has lost its lease, for whoever looks for it now.
--
-- KEYS[1] job
-- ARGV[1] attempt   ARGV[2] run id
-- Returns 1 if it was written. Leaves behind: one field; the state is not touched.

local found = redis.call('HMGET', KEYS[1], 'state', 'attempts')
if found[1] == 'starting' and found[2] == ARGV[1] then
  redis.call('HSET', KEYS[1], 'witness', ARGV[2])
  return 1
end
return 0
