-- took: count runs of an assistant by how long they took. The buckets are those of took.py.
--
-- KEYS[1] took
-- ARGV[1] seconds to keep it   ARGV[2] halve when the counts sum up to more   then the bucket of each run
-- Returns the counts, {bucket, count, …}. Leaves behind: the counts, with an expiry.

for i = 3, #ARGV do
  redis.call('HINCRBYFLOAT', KEYS[1], ARGV[i], 1)
end
local found = redis.call('HGETALL', KEYS[1])
local sum = 0
for i = 2, #found, 2 do
  sum = sum + found[i]
end
if sum > tonumber(ARGV[2]) then
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
