-- unshare: somebody uses a thing no more. When it was the last, the thing's objects are due for deletion.
--
-- KEYS[1] users of the thing   KEYS[2] its objects   KEYS[3] buried   KEYS[4] receipt of what is forgotten
-- ARGV[1] thing   ARGV[2] user   ARGV[3] what is forgotten, or ''   ARGV[4] seconds to keep a receipt
-- Returns 1 if nobody uses it any more. Leaves behind: one user less; without any, each object with a due time.

redis.call('SREM', KEYS[1], ARGV[2])
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local flat = redis.call('HGETALL', KEYS[2])
for i = 1, #flat, 2 do
  local entry = cjson.decode(flat[i + 1])
  entry.due = entry.due and math.min(entry.due, now) or now
  if ARGV[3] ~= '' then
    if not entry.receipt then
      redis.call('HINCRBY', KEYS[4], 'due ' .. string.match(flat[i], '^%S+'), 1)
      redis.call('EXPIRE', KEYS[4], ARGV[4])
    end
    entry.receipt = entry.receipt or ARGV[3]
  end
  redis.call('HSET', KEYS[2], flat[i], cjson.encode(entry))
end
if #flat > 0 then
  redis.call('ZADD', KEYS[3], string.format('%.6f', now), ARGV[1])
end
return 1
