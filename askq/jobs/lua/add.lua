-- add: rows become queued jobs, due at once. A row that is there already is left as it is; so is one that was there,
-- ended, and has expired since: the batch has counted it, and asking it again would pay for it again.
--
-- KEYS[1] due:start   KEYS[2] rows   KEYS[3] count   then per row: job, ask
-- ARGV per row: job id, row id, index, digest, assistant, assistant digest, protocol, question (JSON)
-- Returns per row: 1 added, 0 already there and the same (or expired), -1 there with another digest.
-- Leaves behind: per added row one record, its text, a member of due:start and of rows, one more queued.

local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local found = {}
local added = 0
for row = 0, (#KEYS - 3) / 2 - 1 do
  local record, text = KEYS[4 + 2 * row], KEYS[5 + 2 * row]
  local at = 8 * row
  local known = redis.call('HGET', record, 'digest')
  if not known and redis.call('ZSCORE', KEYS[2], ARGV[at + 2]) then
    found[row + 1] = 0
  elseif not known then
    redis.call('HSET', record, 'state', 'queued', 'index', ARGV[at + 3], 'digest', ARGV[at + 4],
      'assistant', ARGV[at + 5], 'adigest', ARGV[at + 6], 'protocol', ARGV[at + 7],
      'created', string.format('%.6f', now))
    redis.call('SET', text, ARGV[at + 8])
    redis.call('ZADD', KEYS[1], string.format('%.6f', now), ARGV[at + 1])
    redis.call('ZADD', KEYS[2], ARGV[at + 3], ARGV[at + 2])
    added = added + 1
    found[row + 1] = 1
  elseif known == ARGV[at + 4] then
    found[row + 1] = 0
  else
    found[row + 1] = -1
  end
end
if added > 0 then
  redis.call('HINCRBY', KEYS[3], 'queued', added)
end
return found
