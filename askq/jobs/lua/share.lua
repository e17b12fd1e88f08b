-- share: somebody begins to use a thing.
--
-- KEYS[1] users of the thing   KEYS[2] its objects
-- ARGV[1] user
-- Returns its objects that may be used, as a flat list: those that are to be deleted may be gone by now.
-- Leaves behind: one user more.

redis.call('SADD', KEYS[1], ARGV[1])
local flat, usable = redis.call('HGETALL', KEYS[2]), {}
for i = 1, #flat, 2 do
  if not cjson.decode(flat[i + 1]).due then
    usable[#usable + 1], usable[#usable + 2] = flat[i], flat[i + 1]
  end
end
return usable
