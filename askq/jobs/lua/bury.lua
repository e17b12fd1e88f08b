-- bury: put objects of an owner down for deletion, whatever is to be kept.
--
-- KEYS[1] objects of the owner   KEYS[2] buried   KEYS[3] receipt of what is forgotten
-- ARGV[1] owner   ARGV[2] seconds until then   ARGV[3] what is forgotten, or ''   ARGV[4] seconds to keep a receipt
-- then names of objects; none = all
-- Returns how many there are. Leaves behind: each with a due time, which only becomes earlier, and the owner in `buried`;
-- in the receipt those that were not counted before.

local time = redis.call('TIME')
local due = time[1] + time[2] / 1e6 + ARGV[2]
local names = { unpack(ARGV, 5) }
if #names == 0 then
  names = redis.call('HKEYS', KEYS[1])
end
local found = 0
for _, name in ipairs(names) do
  local text = redis.call('HGET', KEYS[1], name)
  if text then
    local entry = cjson.decode(text)
    entry.due = entry.due and math.min(entry.due, due) or due
    if ARGV[3] ~= '' then
      if not entry.receipt then
        redis.call('HINCRBY', KEYS[3], 'due ' .. string.match(name, '^%S+'), 1)
        redis.call('EXPIRE', KEYS[3], ARGV[4])
      end
      entry.receipt = entry.receipt or ARGV[3]
    end
    redis.call('HSET', KEYS[1], name, cjson.encode(entry))
    found = found + 1
  end
end
if found > 0 then
  redis.call('PERSIST', KEYS[1])
  -- Earlier only: something else of this owner may be due already.
  local known = redis.call('ZSCORE', KEYS[2], ARGV[1])
  if not known or tonumber(known) > due then
    redis.call('ZADD', KEYS[2], string.format('%.6f', due), ARGV[1])
  end
end
return found
