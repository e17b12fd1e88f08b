-- retry: a job that has ended is queued once more, because a person asks again.
--
-- KEYS[1] job   KEYS[2] due:start   KEYS[3] count   KEYS[4] ask   KEYS[5] ans   KEYS[6] dead   KEYS[7] objects
-- ARGV[1] id    ARGV[2] ends that may be undone, ',a,b,'   ARGV[3] other ends, ',a,b,'   ARGV[4] fields to forget, 'a b'
-- Returns 'moved'; 'already' (it has not ended); 'not yours' (it has, in another way); 'missing' (it has expired).
-- Leaves behind: a queued record, due at once, without expiry and without anything of its last run but what that has
-- cost: attempts and runs go on counting, and `base` remembers where they stood. The old answer is gone; what the last
-- run has left at the service was buried when it ended. The new fence is nobody's.

local state = redis.call('HGET', KEYS[1], 'state')
if not state or redis.call('EXISTS', KEYS[4]) == 0 then
  return 'missing'
end
if not string.find(ARGV[2], ',' .. state .. ',', 1, true) then
  return string.find(ARGV[3], ',' .. state .. ',', 1, true) and 'not yours' or 'already'
end
local time = redis.call('TIME')
local now = string.format('%.6f', time[1] + time[2] / 1e6)
local old = redis.call('HMGET', KEYS[1], 'fence', 'attempts')
-- As in claim.lua.
local fence = time[1] * 1000000 + time[2]
if old[1] and tonumber(old[1]) >= fence then
  fence = old[1] + 1 + fence % 1000
end
redis.call('HSET', KEYS[1], 'state', 'queued', 'fence', string.format('%.0f', fence), 'base', old[2] or '0')
redis.call('HINCRBY', KEYS[1], 'retries', 1)
for name in string.gmatch(ARGV[4], '%S+') do
  redis.call('HDEL', KEYS[1], name)
end
redis.call('DEL', KEYS[5])
redis.call('PERSIST', KEYS[1])
redis.call('PERSIST', KEYS[4])
redis.call('PERSIST', KEYS[7])
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('ZREM', KEYS[6], ARGV[1])
redis.call('HINCRBY', KEYS[3], state, -1)
redis.call('HINCRBY', KEYS[3], 'queued', 1)
return 'moved'
