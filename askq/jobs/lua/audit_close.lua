-- audit_close: note that a batch which has ended was found in order, so that it need not be looked at again.
--
-- KEYS[1] batch
-- ARGV nothing
-- Returns 1 if it was noted, 0 if the batch is not marked to expire (it may go on) or gone.
-- Leaves behind: one field, which goes when the batch is marked again.

if redis.call('PTTL', KEYS[1]) < 0 then
  return 0
end
redis.call('HSET', KEYS[1], 'audited', '1')
return 1
