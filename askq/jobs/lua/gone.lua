-- gone: what came of deleting objects of an owner: the service has said that one is gone, or has refused.
--
-- KEYS[1] objects of the owner   KEYS[2] buried
-- ARGV[1] owner   ARGV[2] seconds to keep what is never deleted   ARGV[3] seconds to keep a receipt
-- ARGV[4] what the keys of the shard's receipts begin with
-- ARGV[5] then per object: name, 'gone', 'kept' or why it is not gone, seconds until the next try
-- Returns how many are left that are due at some time. Leaves behind: nothing of what is gone, or is kept by a service
-- that cannot delete it; a refusal noted with the object; the owner in `buried` when the next is due, or not at all; in
-- the receipt of what is forgotten, one more.

local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
for i = 5, #ARGV, 3 do
  local name, why = ARGV[i], ARGV[i + 1]
  local text = redis.call('HGET', KEYS[1], name)
  if text then
    local entry = cjson.decode(text)
    if why == 'gone' or why == 'kept' then
      redis.call('HDEL', KEYS[1], name)
      if entry.receipt then
        local receipt = ARGV[4] .. entry.receipt
        redis.call('HINCRBY', receipt, why .. ' ' .. string.match(name, '^%S+') .. (entry.also and '+' or ''), 1)
        redis.call('EXPIRE', receipt, ARGV[3])
      end
    else
      entry.due, entry.why, entry.tries = now + ARGV[i + 2], string.match(why, '^(.-)%s*$'), (entry.tries or 0) + 1
      redis.call('HSET', KEYS[1], name, cjson.encode(entry))
    end
  end
end
local first, left, kept = nil, 0, false
local flat = redis.call('HGETALL', KEYS[1])
for i = 2, #flat, 2 do
  local due = cjson.decode(flat[i]).due
  if due then
    left = left + 1
    first = first and math.min(first, due) or due
  else
    kept = true
  end
end
if first then
  redis.call('ZADD', KEYS[2], string.format('%.6f', first), ARGV[1])
else
  redis.call('ZREM', KEYS[2], ARGV[1])
  if kept and ARGV[2] ~= '' then
    redis.call('EXPIRE', KEYS[1], ARGV[2])
  end
end
return left
