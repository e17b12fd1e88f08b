-- claim: lease due jobs of one lane of one shard, earliest first, each under a new fence.
--
-- KEYS[1] due:<lane>
-- ARGV[1] what the keys of the shard's records begin with   ARGV[2] most jobs   ARGV[3] lease in seconds
-- ARGV[4] what the keys of its questions begin with
-- Returns {now, {id, was due, record as a flat list, question or '' where it is not needed}, …}.
-- Leaves behind: a due time one lease ahead, a fence and a count of claims in each record. A member of due whose
-- record is gone (expired, erased) is removed. A record that was never claimed before is returned with `first`; one with
-- an intent whose call has certainly not left, with `never_sent`.
--
-- A fence is the time in microseconds, so that a server that comes back without its last second never gives one out
-- again that somebody may still hold. Where the clock is behind the last fence (it was set back; a replica with a clock
-- of its own has taken over) it is a little more than that, and how much differs from claim to claim for the same reason.

-- include parts/lineage.lua

local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local claimed = { string.format('%.6f', now) }
local stamp = time[1] * 1000000 + time[2]
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.6f', now), 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local until_ = string.format('%.6f', now + ARGV[3])
for i = 1, #due, 2 do
  local id = due[i]
  local record = ARGV[1] .. id
  local had = redis.call('HMGET', record, 'state', 'fence', 'claims')
  local state, last = had[1], had[2]
  if not state then
    redis.call('ZREM', KEYS[1], id)
  else
    local fence = stamp
    if last and tonumber(last) >= stamp then
      fence = last + 1 + stamp % 1000
    end
    redis.call('HSET', record, 'fence', string.format('%.0f', fence), 'claims', (tonumber(had[3] or '') or 0) + 1)
    redis.call('ZADD', KEYS[1], until_, id)
    local text = ''
    if state == 'queued' or state == 'starting' or state == 'action' then
      text = redis.call('GET', ARGV[4] .. id) or ''
    end
    local fields = redis.call('HGETALL', record)
    if not last then
      fields[#fields + 1] = 'first'
      fields[#fields + 1] = '1'
    end
    local unsent = state == 'starting' and redis.call('HGET', record, 'unsent')
    if unsent and unsent == lineage() then
      fields[#fields + 1] = 'never_sent'
      fields[#fields + 1] = '1'
    end
    claimed[#claimed + 1] = { id, due[i + 1], fields, text }
  end
end
return claimed
