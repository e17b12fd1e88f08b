-- follow: what a question must know of one before it in its conversation, and: whose turn it is when that has ended.
--
-- KEYS[1] job
-- ARGV[1] row id of the one that follows   ARGV[2] states that have not ended, ',a,b,'
-- Returns the record as a flat list, or nothing when there is none.
-- Leaves behind: in a job that has not ended, the row id of the one to be made due then.

local state = redis.call('HGET', KEYS[1], 'state')
if not state then
  return false
end
if string.find(ARGV[2], ',' .. state .. ',', 1, true) and redis.call('HGET', KEYS[1], 'next') ~= ARGV[1] then
  -- A full server lets a deletion pass, and then all else.
  redis.call('HDEL', KEYS[1], '')
  redis.call('HSET', KEYS[1], 'next', ARGV[1])
end
return redis.call('HGETALL', KEYS[1])
