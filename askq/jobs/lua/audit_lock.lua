-- audit_lock: see that a key which must end by itself soon does.
--
-- KEYS[1] a lease, a hint, a turn
-- ARGV[1] most milliseconds it may have left   ARGV[2] '1' = repair
-- Returns 1 if it would have stayed for ever or too long, else 0. Leaves behind: with repair, no such key.
--
-- An expiry is a moment on the server's clock: when that is set back, a lease of seconds lasts for hours.

local left = redis.call('PTTL', KEYS[1])
if left ~= -1 and left <= tonumber(ARGV[1]) then
  return 0
end
if ARGV[2] == '1' then
  redis.call('DEL', KEYS[1])
end
return 1
