-- tell: add to the live log of a running job, as the one who tells it.
--
-- KEYS[1] job   KEYS[2] live log   KEYS[3] who tells
-- ARGV[1] the teller   ARGV[2] milliseconds for which nobody else may tell   ARGV[3] states that have not ended, ',a,b,'
-- ARGV[4] the run that is told about   ARGV[5] most entries   ARGV[6] seconds to keep the log   ARGV[7] pieces, or ''
-- ARGV[8] 1 to tell from now on, whoever has told until now
-- Returns 'moved'; 'already' (the job has ended: there is nothing to tell any more); 'not yours' (another tells, or the
-- job has another run by now); 'missing'.
-- Leaves behind: the teller's name, and one more entry in the log, both with an expiry. Nothing where the job's record
-- is gone: what was erased must not come back.

local found = redis.call('HMGET', KEYS[1], 'state', 'run')
if not found[1] then
  return 'missing'
end
if not string.find(ARGV[3], ',' .. found[1] .. ',', 1, true) then
  return 'already'
end
if found[2] ~= ARGV[4] then
  return 'not yours'
end
local teller = redis.call('GET', KEYS[3])
if teller and teller ~= ARGV[1] and ARGV[8] ~= '1' then
  return 'not yours'
end
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[2])
if ARGV[7] ~= '' then
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], '*', 'run', ARGV[4], 'pieces', ARGV[7])
  redis.call('EXPIRE', KEYS[2], ARGV[6])
end
return 'moved'
