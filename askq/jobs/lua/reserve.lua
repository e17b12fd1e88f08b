-- reserve: put aside what one attempt of a job may cost at worst, if the batch's budget has it.
--
-- KEYS[1] budget
-- ARGV[1] job id   ARGV[2] attempt   ARGV[3] millionths of a dollar
-- ARGV[4] '1' = in place of what an earlier attempt has put aside: this amount covers it
-- Returns 1 when it is put aside (or was before, or there is no budget), 0 when the budget does not have it.
-- Leaves behind: the reservation; since when one was refused, if it was. What an earlier attempt of the job had put
-- aside counts as spent: nobody has said what it cost; unless the new amount covers it, and then a refusal leaves it.

local limit = redis.call('HGET', KEYS[1], 'limit')
if not limit then
  return 1
end
local field = '@' .. ARGV[1]
local more = tonumber(ARGV[3])
local old = redis.call('HGET', KEYS[1], field)
if old then
  local attempt, amount = string.match(old, '^(%d+)/(%d+)$')
  if attempt == ARGV[2] then
    return 1
  end
  if ARGV[4] == '1' then
    more = more - amount
  else
    redis.call('HDEL', KEYS[1], field)
    redis.call('HINCRBY', KEYS[1], 'reserved', -amount)
    redis.call('HINCRBY', KEYS[1], 'spent', amount)
  end
end
local used = redis.call('HMGET', KEYS[1], 'spent', 'reserved')
if (tonumber(used[1]) or 0) + (tonumber(used[2]) or 0) + more > tonumber(limit) then
  redis.call('HSETNX', KEYS[1], 'refused', redis.call('TIME')[1])
  return 0
end
redis.call('HSET', KEYS[1], field, ARGV[2] .. '/' .. ARGV[3])
redis.call('HINCRBY', KEYS[1], 'reserved', string.format('%.0f', more))
redis.call('HDEL', KEYS[1], 'refused')
return 1
