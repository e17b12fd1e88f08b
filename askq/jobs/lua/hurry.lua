-- hurry: the run of a job is known to have ended, so the job is due at once.
--
-- KEYS[1] job   KEYS[2] due:poll
-- ARGV[1] id    ARGV[2] the run
-- Returns 'moved'; 'already' (that run is no longer polled); 'not yours' (somebody has it in hand); 'missing'.
-- Leaves behind: a due time that has come.

local found = redis.call('HMGET', KEYS[1], 'state', 'run', 'claims')
if not found[1] then
  return 'missing'
end
if found[1] ~= 'running' or found[2] ~= ARGV[2] then
  return 'already'
end
if found[3] then
  return 'not yours'
end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local due = redis.call('ZSCORE', KEYS[2], ARGV[1])
if due and tonumber(due) > now then
  redis.call('ZADD', KEYS[2], 'XX', string.format('%.6f', now), ARGV[1])
end
return 'moved'
