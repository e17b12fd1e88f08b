-- audit_register: find members of a register whose time cannot be right.
--
-- KEYS[1] the register, a sorted set
-- ARGV[1] seconds an entry may be past   ARGV[2] seconds it may be ahead   ARGV[3] '1' = repair
-- Returns the members outside. Leaves behind: with repair, none of them.

local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local found = {}
for _, range in ipairs({
  { '-inf', string.format('(%.6f', now - ARGV[1]) },
  { string.format('(%.6f', now + ARGV[2]), '+inf' },
}) do
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], range[1], range[2])) do
    found[#found + 1] = member
    if ARGV[3] == '1' then
      redis.call('ZREM', KEYS[1], member)
    end
  end
end
return found
