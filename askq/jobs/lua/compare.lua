-- compare: what is known of rows, so that a list can be told from the one under the same key.
--
-- KEYS[1] rows   then per row: job
-- ARGV per row: row id
-- Returns per row: its digest, '' for one that was there, ended, and has expired, 0 for one that was never there.
-- Leaves nothing behind.

local found = {}
for row = 1, #KEYS - 1 do
  local known = redis.call('HGET', KEYS[row + 1], 'digest')
  if known then
    found[row] = known
  else
    found[row] = redis.call('ZSCORE', KEYS[1], ARGV[row]) and '' or 0
  end
end
return found
