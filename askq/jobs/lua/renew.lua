-- renew: extend the leases of claimed jobs of one shard that are still ours.
--
-- KEYS[1] due:start   KEYS[2] due:poll   then per job: job
-- ARGV[1] lease in seconds   then per job: id, fence
-- Returns the ids that are no longer ours: claimed by another, or given back by a move of our own, whose due time
-- then counts. Leaves behind: later due times.

local time = redis.call('TIME')
local until_ = string.format('%.6f', time[1] + time[2] / 1e6 + ARGV[1])
local lost = {}
for i = 3, #KEYS do
  local id, fence = ARGV[2 * i - 4], ARGV[2 * i - 3]
  local record = redis.call('HMGET', KEYS[i], 'fence', 'claims')
  if record[1] == fence and record[2] then
    redis.call('ZADD', KEYS[1], 'XX', until_, id)
    redis.call('ZADD', KEYS[2], 'XX', until_, id)
  else
    lost[#lost + 1] = id
  end
end
return lost
