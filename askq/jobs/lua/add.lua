-- add: rows become queued jobs, due at once; one that follows another in a conversation, when its turn has come. A row
-- that is there already is left as it is; so is one that was there, ended, and has expired since: the batch has counted
-- it, and asking it again would pay for it again.
--
-- KEYS[1] due:start   KEYS[2] rows   KEYS[3] count   then per row: job, ask
-- ARGV[1] seconds after which a row that follows another looks whether its turn has come   then per row: job id,
-- row id, index, digest, assistant, assistant digest, protocol, question (JSON), row id it follows or ''
-- Returns per row: 1 added, 0 already there and the same (or expired), -1 there with another digest.
-- Leaves behind: per added row one record, its text, a member of due:start and of rows, one more queued.

local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local stamp, later = string.format('%.6f', now), string.format('%.6f', now + ARGV[1])
local found, due, rows = {}, {}, {}
for row = 0, (#KEYS - 3) / 2 - 1 do
  local record = KEYS[4 + 2 * row]
  local at = 9 * row + 1
  local known = redis.call('HGET', record, 'digest')
  if known then
    found[row + 1] = known == ARGV[at + 4] and 0 or -1
  elseif redis.call('ZSCORE', KEYS[2], ARGV[at + 2]) then
    found[row + 1] = 0
  else
    local after = ARGV[at + 9]
    redis.call('HSET', record, 'state', 'queued', 'index', ARGV[at + 3], 'digest', ARGV[at + 4],
      'assistant', ARGV[at + 5], 'adigest', ARGV[at + 6], 'protocol', ARGV[at + 7], 'created', stamp,
      unpack(after == '' and {} or { 'after', after }))
    redis.call('SET', KEYS[5 + 2 * row], ARGV[at + 8])
    local next = #due
    due[next + 1], due[next + 2] = after == '' and stamp or later, ARGV[at + 1]
    rows[next + 1], rows[next + 2] = ARGV[at + 3], ARGV[at + 2]
    found[row + 1] = 1
  end
end
-- Together, because each call and each line of the append-only file costs more than a member does.
if #due > 0 then
  redis.call('ZADD', KEYS[1], unpack(due))
  redis.call('ZADD', KEYS[2], unpack(rows))
  redis.call('HINCRBY', KEYS[3], 'queued', #due / 2)
end
return found
