-- item_claim: lease due items of an account's library, earliest first, each under a new fence.
--
-- KEYS[1] due
-- ARGV[1] what the keys of the items begin with   ARGV[2] most items   ARGV[3] lease in seconds
-- Returns {now, {name, record as a flat list}, …}.
-- Leaves behind: a due time one lease ahead and a fence in each record. A name without a record is removed.

local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local claimed = { string.format('%.6f', now) }
local stamp = time[1] * 1000000 + time[2]
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.6f', now), 'LIMIT', 0, ARGV[2])
for _, name in ipairs(due) do
  local item = ARGV[1] .. name
  if redis.call('EXISTS', item) == 0 then
    redis.call('ZREM', KEYS[1], name)
  else
    local fence = math.max(stamp, (tonumber(redis.call('HGET', item, 'fence')) or 0) + 1)
    redis.call('HSET', item, 'fence', string.format('%.0f', fence))
    redis.call('ZADD', KEYS[1], string.format('%.6f', now + ARGV[3]), name)
    claimed[#claimed + 1] = { name, redis.call('HGETALL', item) }
  end
end
return claimed
