-- took: count runs of an assistant by how long they took. The buckets are those of took.py.
--
-- KEYS[1] took
-- ARGV[1] seconds to keep it   ARGV[2] halve when more runs than that have ended
-- then what to count and how often: a bucket for runs that ended in it, −1 − bucket for those that outlived it
-- Returns the counts, {what, count, …}. Leaves behind: the counts, with an expiry.

for i = 3, #ARGV, 2 do
  redis.call('HINCRBYFLOAT', KEYS[1], ARGV[i], ARGV[i + 1])
end
local found = redis.call('HGETALL', KEYS[1])
local ended = 0
for i = 1, #found, 2 do
  if tonumber(found[i]) >= 0 then
    ended = ended + found[i + 1]
  end
end
if ended > tonumber(ARGV[2]) then
  for i = 1, #found, 2 do
    if tonumber(found[i + 1]) < 0.1 then
      redis.call('HDEL', KEYS[1], found[i])
    else
      redis.call('HSET', KEYS[1], found[i], found[i + 1] / 2)
    end
  end
  found = redis.call('HGETALL', KEYS[1])
end
if #ARGV > 2 then
  redis.call('EXPIRE', KEYS[1], ARGV[1])
end
return found
