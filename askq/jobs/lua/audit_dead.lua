-- audit_dead: check a page of one shard's dead letters against their records.
--
-- KEYS[1] dead
-- ARGV[1] what the keys of the shard's records begin with   ARGV[2] cursor   ARGV[3] about how many
-- ARGV[4] the error code of a dead letter   ARGV[5] '1' = repair
-- Returns {next cursor ('0' = that was the last page), {id, …}}: the members that are no dead letters.
-- Leaves behind: with repair, none of those, and none whose record has expired.

local repair = ARGV[5] == '1'
local page = redis.call('ZSCAN', KEYS[1], ARGV[2], 'COUNT', ARGV[3])
local found = {}
for i = 1, #page[2], 2 do
  local id = page[2][i]
  local record = redis.call('HMGET', ARGV[1] .. id, 'state', 'error_code')
  if record[1] and record[2] ~= ARGV[4] then
    found[#found + 1] = id
  end
  if repair and record[2] ~= ARGV[4] then
    redis.call('ZREM', KEYS[1], id)
  end
end
return { page[1], found }
