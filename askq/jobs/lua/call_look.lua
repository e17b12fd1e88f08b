-- call_look: the function calls of a job; those it waits for are in the schedule afterwards.
--
-- KEYS[1] job   KEYS[2] calls   KEYS[3] functions
-- ARGV[1] id
-- Returns the record of its calls as a flat list. Leaves behind: calls of the present round that have no output due
-- now, if they were due nowhere.

local found = redis.call('HMGET', KEYS[1], 'state', 'rounds')
local flat = redis.call('HGETALL', KEYS[2])
if found[1] == 'action' and found[2] then
  local now = redis.call('TIME')
  for i = 1, #flat, 2 do
    local round = string.match(flat[i], '^(%d+)%.%d+$')
    local member = flat[i] .. '/' .. ARGV[1]
    -- Asked first, because a full server refuses even a write that would change nothing.
    if round == found[2] and redis.call('HEXISTS', KEYS[2], flat[i] .. '/output') == 0
      and not redis.call('ZSCORE', KEYS[3], member) then
      redis.call('ZADD', KEYS[3], now[1], member)
    end
  end
end
return flat
