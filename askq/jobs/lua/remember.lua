-- remember: put remote objects on record, before they are used.
--
-- KEYS[1] objects of the owner
-- ARGV[1] name of an object   ARGV[2] what is known of it (JSON)   and so on
-- Returns how many are new. Leaves behind: the objects, without an expiry; one that is there already stays as it is.

local new = 0
for i = 1, #ARGV, 2 do
  new = new + redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('PERSIST', KEYS[1])
return new
