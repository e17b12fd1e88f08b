-- audit_due: check a page of one lane of one shard for members that should not be there, or whose batch does not know
-- them.
--
-- KEYS[1] due:<lane>   KEYS[2] due:<the other lane>
-- ARGV[1] what the keys of the shard's records begin with   ARGV[2] what the keys of its rows begin with
-- ARGV[3] cursor   ARGV[4] about how many   ARGV[5] ends, ',a,b,'   ARGV[6] '1' = repair
-- ARGV[7] the one batch that is meant, '' = all
-- Returns {next cursor ('0' = that was the last page), members seen, members due in the future,
-- {batch, …}, {{code, id}, …}}.
-- Leaves behind: with repair, no member without a record, none that has ended, and a row for each of the rest.

local repair = ARGV[6] == '1'
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local page = redis.call('ZSCAN', KEYS[1], ARGV[3], 'COUNT', ARGV[4])
local ahead, seen, batches, found = 0, {}, {}, {}
for i = 1, #page[2], 2 do
  local id = page[2][i]
  local dot = string.find(id, '.', 1, true) or #id + 1
  local batch, row = string.sub(id, 1, dot - 1), string.sub(id, dot + 1)
  local record = redis.call('HMGET', ARGV[1] .. id, 'state', 'index', 'after', 'claims')
  local state = record[1]
  -- Who waits for a turn in a conversation is in nobody's hands.
  if tonumber(page[2][i + 1]) > now and (record[4] or not record[3]) then
    ahead = ahead + 1
  end
  if ARGV[7] ~= '' and batch ~= ARGV[7] then
    seen[batch] = true
  elseif not state or string.find(ARGV[5], ',' .. state .. ',', 1, true) then
    found[#found + 1] = { state and 'ended_but_due' or 'due_without_record', id }
    if repair then
      redis.call('ZREM', KEYS[1], id)
      redis.call('ZREM', KEYS[2], id)
    end
  else
    if not redis.call('ZSCORE', ARGV[2] .. batch, row) then
      found[#found + 1] = { 'unlisted', id }
      if repair then
        redis.call('ZADD', ARGV[2] .. batch, record[2] or 0, row)
      end
    end
    if not seen[batch] then
      seen[batch] = true
      batches[#batches + 1] = batch
    end
  end
end
return { page[1], #page[2] / 2, ahead, batches, found }
