-- give_back: return claimed jobs of one shard untouched: the claim does not count against them.
--
-- KEYS[1] due:start   KEYS[2] due:poll   then per job: job
-- ARGV[1] seconds until due again   then per job: id, fence
-- Returns how many were still ours. Leaves behind: sooner due times, and one claim less.

local time = redis.call('TIME')
local due = string.format('%.6f', time[1] + time[2] / 1e6 + ARGV[1])
local given = 0
for i = 3, #KEYS do
  local id, fence = ARGV[2 * i - 4], ARGV[2 * i - 3]
  local record = redis.call('HMGET', KEYS[i], 'fence', 'claims')
  if record[1] == fence and record[2] then
    local claims = tonumber(record[2]) - 1
    if claims > 0 then
      redis.call('HSET', KEYS[i], 'claims', claims)
    else
      redis.call('HDEL', KEYS[i], 'claims')
    end
    redis.call('ZADD', KEYS[1], 'XX', due, id)
    redis.call('ZADD', KEYS[2], 'XX', due, id)
    given = given + 1
  end
end
return given
