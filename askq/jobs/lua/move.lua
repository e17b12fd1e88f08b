-- move: one named transition of one job, whole or not at all. The rule comes from the table in model.py.
--
-- KEYS[1] job   KEYS[2] due:start   KEYS[3] due:poll   KEYS[4] count   KEYS[5] ask   KEYS[6] ans   KEYS[7] dead
-- KEYS[8] calls   KEYS[9] functions   KEYS[10] objects   KEYS[11] buried
-- ARGV[1] id            ARGV[2] fence          ARGV[3] name of the move    ARGV[4] sources, ',a,b,'
-- ARGV[5] target or ''  ARGV[6] lane of the target: '2', '3' or '' (terminal)
-- ARGV[7] seconds until due again              ARGV[8] seconds to keep terminal records
-- ARGV[9] answer or ''  ARGV[10] '1' = the claim goes on             ARGV[11] '1' = not against a witness
-- ARGV[12] '1' = a dead letter      ARGV[13] '1' = thread, run or witness may change
-- ARGV[14] how many function calls to put on record, for each <round>.<n> and its text
-- then how many field names to delete, those names, then field, value, …
-- Returns 'moved', 'already', 'not yours' or 'missing'.
-- Leaves behind: the changed record, without `claims` if the claim is over; the job in the lane of its state, or in
-- none if that is terminal; counters of the batch in step with it, tokens and cost of the record included; for
-- terminal jobs an expiry on everything that belongs to them alone, no function calls (the answer has them), and a dead
-- letter in its set. A thread or run that the record has no more, or has ended with, is buried (parts/bury.lua). Of a
-- move under a stale fence: one more in the batch's count of those. Function calls that are new are due, in the order in
-- which their runs began; a job whose calls all have outputs is due at once. Of an intent that is `unsent`, the lineage
-- of the server in that field.
--
-- include parts/bury.lua
-- include parts/lineage.lua

local mine = redis.call('HMGET', KEYS[1], 'fence', 'done', 'woken', 'state', 'witness')
local state = mine[4]
if not state then
  return 'missing'
end
local token = ARGV[2] .. '/' .. ARGV[3]
if mine[2] == token then
  return 'already'
end
if mine[1] ~= ARGV[2] then
  if mine[1] then
    -- A full server lets a deletion pass, and then all else: what came too late must not hold up what did not.
    redis.call('HDEL', KEYS[4], '')
    redis.call('HINCRBY', KEYS[4], 'stale', 1)
  end
  return 'not yours'
end
if not string.find(ARGV[4], ',' .. state .. ',', 1, true) then
  return 'not yours'
end
if ARGV[11] == '1' and mine[5] then
  return 'not yours'
end

local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local target = ARGV[5]
if target == '' then
  target = state
end

-- A full server looks at the first write only, and lets a deletion pass. So a move that goes on to a paid call is
-- refused there, whole, and any other is made: it saves what was paid for. The rest is written with two calls, because
-- every call is also a line of the append-only file.
local calls = tonumber(ARGV[14])
local first = 16 + 2 * calls
local drop = tonumber(ARGV[first - 1])
local ends = ARGV[5] ~= '' and ARGV[6] == ''
local REMOTE = { 'thread', 'run', 'witness' }
local had = {}
if ends or ARGV[13] == '1' then
  had = redis.call('HMGET', KEYS[1], unpack(REMOTE))
end
if ARGV[10] == '1' then
  redis.call('HSET', KEYS[1], 'claims', '0')
  if drop > 0 then
    redis.call('HDEL', KEYS[1], unpack(ARGV, first, first - 1 + drop))
  end
else
  redis.call('HDEL', KEYS[1], 'claims', unpack(ARGV, first, first - 1 + drop))
end
redis.call('HSET', KEYS[1], 'state', target, 'done', token, unpack(ARGV, first + drop))

if ends or ARGV[13] == '1' then
  local has, there, left = redis.call('HMGET', KEYS[1], unpack(REMOTE)), {}, {}
  for i, field in ipairs(REMOTE) do
    there[has[i] or ''] = true
    if ends and has[i] then
      left[#left + 1], left[#left + 2] = field, has[i]
    end
  end
  for i, field in ipairs(REMOTE) do
    -- A witness that was believed is the run by now.
    if had[i] and not there[had[i]] then
      left[#left + 1], left[#left + 2] = field, had[i]
    end
  end
  if ends or #left > 0 then
    bury(KEYS[1], KEYS[10], KEYS[11], ARGV[1], left, ends, now, tonumber(ARGV[8]))
  end
end

if target ~= state then
  redis.call('HINCRBY', KEYS[4], state, -1)
  redis.call('HINCRBY', KEYS[4], target, 1)
end

if ends then
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('ZREM', KEYS[3], ARGV[1])
  if ARGV[9] ~= '' then
    redis.call('SET', KEYS[6], ARGV[9])
  end
  local stamp = string.format('%.6f', now)
  redis.call('HSET', KEYS[1], 'completed', stamp)
  redis.call('HSET', KEYS[4], 'finished', stamp)
  local names = { 'in', 'cached', 'out', 'total' }
  local used = redis.call('HMGET', KEYS[1], unpack(names))
  for i, name in ipairs(names) do
    if used[i] then
      redis.call('HINCRBY', KEYS[4], name, used[i])
    end
  end
  local cost = redis.call('HGET', KEYS[1], 'cost')
  if cost then
    redis.call('HINCRBYFLOAT', KEYS[4], 'cost', cost)
  end
  if ARGV[12] == '1' then
    redis.call('ZADD', KEYS[7], stamp, ARGV[1])
  end
  if redis.call('HEXISTS', KEYS[1], 'rounds') == 1 then
    redis.call('DEL', KEYS[8])
  end
  for _, key in ipairs({ KEYS[1], KEYS[5], KEYS[6] }) do
    redis.call('EXPIRE', key, ARGV[8])
  end
else
  if calls > 0 then
    local todo = 0
    -- Runs that have waited longest come first: a service lets them wait for minutes, and then they have cost for nothing.
    local begun = redis.call('HMGET', KEYS[1], 'began', 'started')
    local since = math.min(now, tonumber(begun[1] or begun[2] or now))
    for at = 15, first - 2, 2 do
      local key = ARGV[at]
      if redis.call('HSETNX', KEYS[8], key, ARGV[at + 1]) == 1 then
        redis.call('ZADD', KEYS[9], string.format('%.6f', since), key .. '/' .. ARGV[1])
      end
      todo = todo + 1 - redis.call('HEXISTS', KEYS[8], key .. '/output')
    end
    redis.call('HSET', KEYS[8], 'todo', todo)
  end
  local delay = ARGV[7]
  if (ARGV[3] == 'act' or ARGV[3] == 'wait') and redis.call('HGET', KEYS[8], 'todo') == '0' then
    -- The last output came while the job was in hand: nobody else will say so.
    delay = 0
  end
  local lane
  if ARGV[6] ~= '' then
    lane = tonumber(ARGV[6])
  elseif redis.call('ZSCORE', KEYS[2], ARGV[1]) then
    lane = 2
  else
    lane = 3
  end
  if mine[3] and ARGV[3] == 'defer' then
    -- What it is to wait for has ended since it looked.
    redis.call('HDEL', KEYS[1], 'woken')
    delay = 0
  end
  redis.call('ZADD', KEYS[lane], string.format('%.6f', now + delay), ARGV[1])
  redis.call('ZREM', KEYS[5 - lane], ARGV[1])
  if ARGV[3] == 'intend' and redis.call('HEXISTS', KEYS[1], 'unsent') == 1 then
    -- That the call has not left is believed only of a server that cannot have lost the word that it has.
    redis.call('HSET', KEYS[1], 'unsent', lineage() or '')
  end
  for _, pair in ipairs({ { 'intend', 'intent_at' }, { 'start', 'started' }, { 'adopt', 'started' } }) do
    if ARGV[3] == pair[1] then
      redis.call('HSET', KEYS[1], pair[2], string.format('%.6f', now))
    end
  end
end
return 'moved'
