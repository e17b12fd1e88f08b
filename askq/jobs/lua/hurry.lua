-- hurry: the run of a job is known to have ended, so the job is due at once.
--
-- KEYS[1] job   KEYS[2] due:poll
-- ARGV[1] id    ARGV[2] the run   ARGV[3] what it has ended with, or ''   ARGV[4] the attempt that made it
-- Returns 'moved'; 'already' (that run is no longer polled); 'not yours' (somebody has it in hand, or a server that came
-- back without its last second does not know the run yet); 'missing'.
-- Leaves behind: a due time that has come; what the run has ended with, until the job moves on; where the job is still
-- `starting` with that attempt, the run's id as a witness, too.

local found = redis.call('HMGET', KEYS[1], 'state', 'run', 'claims', 'attempts', 'final')
if not found[1] then
  return 'missing'
end
local forgotten = ARGV[3] ~= '' and found[1] == 'starting' and found[4] == ARGV[4]
if not forgotten and (found[1] ~= 'running' or found[2] ~= ARGV[2]) then
  return 'already'
end
if ARGV[3] ~= '' and found[5] ~= ARGV[3] then
  redis.call('HSET', KEYS[1], 'final', ARGV[3])
end
if forgotten then
  redis.call('HSET', KEYS[1], 'witness', ARGV[2])
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
return forgotten and 'not yours' or 'moved'
