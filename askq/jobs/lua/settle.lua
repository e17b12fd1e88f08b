-- settle: what was put aside for an attempt of a job becomes what it has cost.
--
-- KEYS[1] budget
-- ARGV[1] job id   ARGV[2] attempt   ARGV[3] millionths of a dollar; '' = nobody knows, so all that was put aside
-- Returns 1, or 0 when nothing is put aside for this attempt. Leaves behind: no reservation, its cost as
-- spent, and no refusal: something may have been freed, so whoever waits has to ask again before anybody gives up.

local field = '@' .. ARGV[1]
local old = redis.call('HGET', KEYS[1], field)
local attempt, amount = string.match(old or '', '^(%d+)/(%d+)$')
if attempt ~= ARGV[2] then
  return 0
end
redis.call('HDEL', KEYS[1], field)
redis.call('HINCRBY', KEYS[1], 'reserved', -amount)
redis.call('HINCRBY', KEYS[1], 'spent', ARGV[3] == '' and amount or ARGV[3])
redis.call('HDEL', KEYS[1], 'refused')
return 1
