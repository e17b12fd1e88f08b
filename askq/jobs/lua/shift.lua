-- shift: the clock of a shard was set back: what is due in a while by the old clock is due in that while by the new one.
--
-- KEYS[1] a schedule: due:start of a shard, or that of a library   KEYS[2] due:poll of the shard, if it is one
-- The last of KEYS: its clock
-- ARGV[1] seconds the clock was set back   ARGV[2] milliseconds within which others speak of the same step
-- Returns how many entries were moved, -1 if another was here for the same step.
-- Leaves behind: earlier due times, never before now; a mark for whoever comes with the same step.

if not redis.call('SET', KEYS[#KEYS], '1', 'NX', 'PX', ARGV[2]) then
  return -1
end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local moved = 0
for lane = 1, #KEYS - 1 do
  local later = redis.call('ZRANGEBYSCORE', KEYS[lane], string.format('(%.6f', now), '+inf', 'WITHSCORES')
  for i = 1, #later, 2 do
    local due = math.max(now, later[i + 1] - ARGV[1])
    redis.call('ZADD', KEYS[lane], string.format('%.6f', due), later[i])
    moved = moved + 1
  end
end
return moved
