-- call_claim: lease due function calls of one shard, each under a new fence.
--
-- KEYS[1] functions
-- ARGV[1] what the keys of the shard's records begin with   ARGV[2] of its calls   ARGV[3] most calls
-- ARGV[4] lease in seconds
-- Returns {{id, key, call, fence, claims, crashes, begun, assistant's digest}, …}.
-- Leaves behind: a due time one lease ahead, a fence and a count of claims in the record of each call. A member whose
-- job does not wait for it (it has ended, or is to be cancelled, or has gone on) is removed.

local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local stamp = time[1] * 1000000 + time[2]
local claimed = {}
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.6f', now), 'LIMIT', 0, 100)
for _, member in ipairs(due) do
  if #claimed >= tonumber(ARGV[3]) then
    break
  end
  local key, id = string.match(member, '^([%d.]+)/(.*)$')
  local job = redis.call('HMGET', ARGV[1] .. id, 'state', 'rounds', 'cancel', 'adigest')
  local record = ARGV[2] .. id
  local call = redis.call('HMGET', record, key, key .. '/output', key .. '/fence', key .. '/crashes', key .. '/begun')
  local wanted = job[1] == 'action' and job[2] == string.match(key, '^%d+') and not job[3]
  if not wanted or not call[1] or call[2] then
    redis.call('ZREM', KEYS[1], member)
  else
    local fence = string.format('%.0f', math.max(stamp, (tonumber(call[3]) or 0) + 1))
    redis.call('HSET', record, key .. '/fence', fence)
    local claims = redis.call('HINCRBY', record, key .. '/claims', 1)
    redis.call('ZADD', KEYS[1], string.format('%.6f', now + ARGV[4]), member)
    claimed[#claimed + 1] = { id, key, call[1], fence, claims, call[4] or '0', call[5] and 1 or 0, job[4] }
  end
end
return claimed
