-- register: say that a member (a chain execution, a worker) is alive until a moment from now.
--
-- KEYS[1] the register, a sorted set
-- ARGV[1] member or '' (only look)   ARGV[2] seconds
-- Returns the members that are alive. Leaves behind: the member; those whose time has passed are gone.

local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.6f', now))
if ARGV[1] ~= '' then
  redis.call('ZADD', KEYS[1], string.format('%.6f', now + ARGV[2]), ARGV[1])
end
return redis.call('ZRANGE', KEYS[1], 0, -1)
