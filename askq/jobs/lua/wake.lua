-- wake: a job that waits for its turn in a conversation is due at once: what it waits for has ended, or is about to.
--
-- KEYS[1] job   KEYS[2] due:start
-- ARGV[1] id
-- Returns 1 if it waits for anything, else 0.
-- Leaves behind: a due time of now; in one that somebody is just looking at, a sign that the look came too early.

local found = redis.call('HMGET', KEYS[1], 'state', 'claims')
if found[1] ~= 'queued' then
  return 0
end
-- A full server looks at the first write only, and lets a deletion pass: the end that wakes it must not wait for room.
redis.call('HDEL', KEYS[1], 'looks')
if found[2] then
  redis.call('HSET', KEYS[1], 'woken', '1')
  return 1
end
local time = redis.call('TIME')
redis.call('ZADD', KEYS[2], 'XX', string.format('%.6f', time[1] + time[2] / 1e6), ARGV[1])
return 1
