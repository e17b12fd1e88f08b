-- cancel: a person wants a job to end. Its run, if there is one, is cancelled by whoever claims the job next.
--
-- KEYS[1] job   KEYS[2] due:start   KEYS[3] due:poll
-- ARGV[1] id    ARGV[2] states that have not ended, ',a,b,'
-- Returns 'moved'; 'already' (it has ended, or was told before); 'missing'.
-- Leaves behind: the wish in the record. A job nobody holds is due at once; one that is held is, as before, when its
-- lease ends, or when its holder gives it back.

local found = redis.call('HMGET', KEYS[1], 'state', 'cancel', 'claims')
if not found[1] then
  return 'missing'
end
if found[2] == 'asked' or not string.find(ARGV[2], ',' .. found[1] .. ',', 1, true) then
  return 'already'
end
redis.call('HSET', KEYS[1], 'cancel', 'asked')
if not found[3] then
  local time = redis.call('TIME')
  local now = string.format('%.6f', time[1] + time[2] / 1e6)
  redis.call('ZADD', KEYS[2], 'XX', now, ARGV[1])
  redis.call('ZADD', KEYS[3], 'XX', now, ARGV[1])
end
return 'moved'
