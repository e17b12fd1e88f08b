-- cancel: a person wants a job to end. Its run, if there may be one, is cancelled by whoever claims the job next.
--
-- KEYS[1] job   KEYS[2] due:start   KEYS[3] due:poll   KEYS[4] count   KEYS[5] ask   KEYS[6] objects   KEYS[7] buried
-- ARGV[1] id    ARGV[2] states that have not ended, ',a,b,'   ARGV[3] seconds to keep terminal records
-- ARGV[4] what a job says that ends here
-- Returns 'moved'; 'already' (it has ended, or was told before); 'missing'.
-- Leaves behind: the wish in the record. A job that is queued and in nobody's hands, and has not been answered before
-- (its earlier attempts have used something that is to be counted), has no run and gets none: it has
-- ended, out of the schedule, counted, with an expiry. Any other that nobody holds is due at once; one that is held is,
-- as before, when its lease ends, or when its holder gives it back.
--
-- include parts/bury.lua

local found = redis.call('HMGET', KEYS[1], 'state', 'cancel', 'claims', 'spent')
if not found[1] then
  return 'missing'
end
if not string.find(ARGV[2], ',' .. found[1] .. ',', 1, true) then
  return 'already'
end
if found[2] == 'asked' and (found[1] ~= 'queued' or found[3] or found[4]) then
  return 'already'
end
redis.call('HSET', KEYS[1], 'cancel', 'asked')
if found[3] then
  return 'moved'
end
local time = redis.call('TIME')
local now = string.format('%.6f', time[1] + time[2] / 1e6)
if found[1] ~= 'queued' or found[4] then
  redis.call('ZADD', KEYS[2], 'XX', now, ARGV[1])
  redis.call('ZADD', KEYS[3], 'XX', now, ARGV[1])
  return 'moved'
end
redis.call('HSET', KEYS[1], 'state', 'cancelled', 'completed', now, 'error_code', 'cancelled', 'error_message', ARGV[4])
redis.call('HDEL', KEYS[1], 'note')
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HINCRBY', KEYS[4], 'queued', -1)
redis.call('HINCRBY', KEYS[4], 'cancelled', 1)
redis.call('HSET', KEYS[4], 'finished', now)
local thread = redis.call('HGET', KEYS[1], 'thread')
bury(KEYS[1], KEYS[6], KEYS[7], ARGV[1], thread and { 'thread', thread } or {}, true, tonumber(now), tonumber(ARGV[3]))
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('EXPIRE', KEYS[5], ARGV[3])
return 'moved'
