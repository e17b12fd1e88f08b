-- tombs: lease owners in one shard of whose objects some are due for deletion, earliest first.
--
-- KEYS[1] buried
-- ARGV[1] what the keys of the shard's objects begin with   ARGV[2] most owners   ARGV[3] lease in seconds
-- Returns {now, {owner, objects as a flat list}, …}. Leaves behind: each due one lease ahead; an owner that has nothing
-- is gone. Two who delete the same object do no harm, so a lease has no fence.

local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local found = { string.format('%.6f', now) }
for _, owner in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.6f', now), 'LIMIT', 0, ARGV[2])) do
  local objects = redis.call('HGETALL', ARGV[1] .. owner)
  if #objects == 0 then
    redis.call('ZREM', KEYS[1], owner)
  else
    redis.call('ZADD', KEYS[1], string.format('%.6f', now + ARGV[3]), owner)
    found[#found + 1] = { owner, objects }
  end
end
return found
