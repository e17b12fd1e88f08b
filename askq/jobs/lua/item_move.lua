-- item_move: change an item of the library, whole or not at all.
--
-- KEYS[1] item   KEYS[2] due   KEYS[3] names
-- ARGV[1] name   ARGV[2] fence   ARGV[3] seconds until due again, '' = at rest, 'gone' = the record goes
-- ARGV[4] '1' = whoever holds it now holds it no more
-- ARGV[5] how many field names to delete, those names, then field, value, …
-- Returns 'moved', 'not yours' or 'missing'.
-- Leaves behind: the changed record, due when told; of one that goes, nothing.

local fence = redis.call('HGET', KEYS[1], 'fence')
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 'missing'
end
if (fence or '0') ~= ARGV[2] then
  return 'not yours'
end
if ARGV[3] == 'gone' then
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('ZREM', KEYS[3], ARGV[1])
  return 'moved'
end
local time = redis.call('TIME')
local drop = tonumber(ARGV[5])
if drop > 0 then
  redis.call('HDEL', KEYS[1], unpack(ARGV, 6, 5 + drop))
end
if #ARGV > 5 + drop then
  redis.call('HSET', KEYS[1], unpack(ARGV, 6 + drop))
end
if ARGV[4] == '1' then
  local new = math.max(time[1] * 1000000 + time[2], tonumber(fence or '0') + 1)
  redis.call('HSET', KEYS[1], 'fence', string.format('%.0f', new))
end
if ARGV[3] == '' then
  redis.call('ZREM', KEYS[2], ARGV[1])
else
  redis.call('ZADD', KEYS[2], string.format('%.6f', time[1] + time[2] / 1e6 + ARGV[3]), ARGV[1])
end
return 'moved'
