-- item_want: somebody needs an item of the library.
--
-- KEYS[1] item   KEYS[2] due   KEYS[3] names
-- ARGV[1] name   ARGV[2] '1' = try again what failed   ARGV[3] '1' = only if it is there   ARGV[4] seconds to keep it, '' = for ever
-- ARGV[5] field, value, …
-- Returns {now, its record as a flat list}: an empty one for an item that is not there and was not to be made.
-- Leaves behind: a record in state wanted, due now, where there was none; one that had failed or was to be deleted,
-- wanted again if so told. A record nobody asks for
-- expires, unless it is to be kept: what it was at the service is on record elsewhere.

local time = redis.call('TIME')
local now = string.format('%.6f', time[1] + time[2] / 1e6)
local state = redis.call('HGET', KEYS[1], 'state')
if not state then
  if ARGV[3] == '1' then
    return { now, {} }
  end
  redis.call('HSET', KEYS[1], unpack(ARGV, 5))
  redis.call('HSET', KEYS[1], 'state', 'wanted', 'created', now)
  redis.call('ZADD', KEYS[2], now, ARGV[1])
  redis.call('ZADD', KEYS[3], now, ARGV[1])
elseif (state == 'failed' and ARGV[2] == '1') or (state == 'leaving' and ARGV[3] ~= '1') then
  local fence = math.max(time[1] * 1000000 + time[2], (tonumber(redis.call('HGET', KEYS[1], 'fence')) or 0) + 1)
  redis.call('HSET', KEYS[1], 'state', 'wanted', 'fence', string.format('%.0f', fence))
  redis.call('HDEL', KEYS[1], 'error', 'tries', 'remote', 'data')
  redis.call('ZADD', KEYS[2], now, ARGV[1])
end
if ARGV[4] == '' then
  redis.call('HSET', KEYS[1], 'kept', '1')
  redis.call('PERSIST', KEYS[1])
elseif redis.call('HEXISTS', KEYS[1], 'kept') == 0 then
  redis.call('EXPIRE', KEYS[1], ARGV[4])
end
return { now, redis.call('HGETALL', KEYS[1]) }
