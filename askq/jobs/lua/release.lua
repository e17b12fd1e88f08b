-- release: delete a key if it holds what we put there: a lease of ours, an id that proved wrong.
--
-- KEYS[1] the key
-- ARGV[1] its value
-- Returns 1 if it was ours, else 0. Leaves nothing behind.

if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
