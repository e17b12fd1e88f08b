-- audit_lock: see that a key which must end by itself does.
--
-- KEYS[1] a lease, a hint, a turn
-- ARGV[1] '1' = repair
-- Returns 1 if it would have stayed for ever, else 0. Leaves behind: with repair, no such key.

if redis.call('PTTL', KEYS[1]) ~= -1 then
  return 0
end
if ARGV[1] == '1' then
  redis.call('DEL', KEYS[1])
end
return 1
