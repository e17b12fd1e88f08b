-- call_change: one change of a claimed function call, under its fence.
--
-- KEYS[1] job   KEYS[2] calls   KEYS[3] functions   KEYS[4] due:poll
-- ARGV[1] id   ARGV[2] key   ARGV[3] fence   ARGV[4] 'begin', 'renew', 'finish', 'crashed' or 'untouched'
-- ARGV[5] the output (finish), or seconds until due (renew, crashed, untouched)
-- Returns 'done', or 'stale' when the claim has ended, the output is on record, or the job waits for it no more.
-- Leaves behind: a mark (begin), a due time (renew, crashed, untouched) with a count of crashes, or with no mark and a
-- count of claims one lower; or the output, the call out of the schedule, one call less to do, and the job due at once if
-- that was the last and nobody holds it.

local key, what = ARGV[2], ARGV[4]
local member = key .. '/' .. ARGV[1]
local found = redis.call('HMGET', KEYS[2], key .. '/fence', key .. '/output')
local job = redis.call('HMGET', KEYS[1], 'state', 'rounds', 'claims')
if found[1] ~= ARGV[3] or found[2] or job[1] ~= 'action' or job[2] ~= string.match(key, '^%d+') then
  return 'stale'
end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
if what == 'begin' then
  redis.call('HSET', KEYS[2], key .. '/begun', '1')
elseif what == 'finish' then
  redis.call('ZREM', KEYS[3], member)
  redis.call('HSET', KEYS[2], key .. '/output', ARGV[5])
  if redis.call('HINCRBY', KEYS[2], 'todo', -1) <= 0 and not job[3] then
    redis.call('ZADD', KEYS[4], 'XX', string.format('%.6f', now), ARGV[1])
  end
else
  if what == 'crashed' then
    redis.call('HINCRBY', KEYS[2], key .. '/crashes', 1)
  elseif what == 'untouched' then
    redis.call('HINCRBY', KEYS[2], key .. '/claims', -1)
    -- Whoever had noted that it begins says that it did not: else a function that must not run twice would not run at all.
    redis.call('HDEL', KEYS[2], key .. '/begun')
  end
  if what ~= 'renew' then
    -- Whoever held it does so no more.
    redis.call('HINCRBY', KEYS[2], key .. '/fence', 1)
  end
  redis.call('ZADD', KEYS[3], string.format('%.6f', now + ARGV[5]), member)
end
return 'done'
