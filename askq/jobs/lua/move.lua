-- move: one named transition of one job, whole or not at all. The rule comes from the table in model.py.
--
-- KEYS[1] job   KEYS[2] due:start   KEYS[3] due:poll   KEYS[4] count   KEYS[5] ask   KEYS[6] ans   KEYS[7] rows
-- ARGV[1] id            ARGV[2] fence          ARGV[3] name of the move    ARGV[4] sources, ',a,b,'
-- ARGV[5] target or ''  ARGV[6] lane of the target: '2', '3' or '' (terminal)
-- ARGV[7] seconds until due again              ARGV[8] seconds to keep terminal records
-- ARGV[9] answer or ''  ARGV[10] how many field names to delete, those names, then field, value, …
-- Returns 'moved', 'already', 'not yours' or 'missing'.
-- Leaves behind: the changed record; the job in the lane of its state, or in none if that is terminal; counters
-- of the batch in step with it; for terminal jobs an expiry on everything that belongs to them.

local state = redis.call('HGET', KEYS[1], 'state')
if not state then
  return 'missing'
end
local token = ARGV[2] .. '/' .. ARGV[3]
local mine = redis.call('HMGET', KEYS[1], 'fence', 'done')
if mine[2] == token then
  return 'already'
end
if mine[1] ~= ARGV[2] or not string.find(ARGV[4], ',' .. state .. ',', 1, true) then
  return 'not yours'
end

local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local target = ARGV[5]
if target == '' then
  target = state
end

local drop = tonumber(ARGV[10])
for i = 11, 10 + drop do
  redis.call('HDEL', KEYS[1], ARGV[i])
end
local usage = {}
for i = 11 + drop, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  usage[ARGV[i]] = ARGV[i + 1]
end
redis.call('HSET', KEYS[1], 'state', target, 'done', token)
redis.call('HDEL', KEYS[1], 'claims')

if target ~= state then
  redis.call('HINCRBY', KEYS[4], state, -1)
  redis.call('HINCRBY', KEYS[4], target, 1)
end

if ARGV[5] ~= '' and ARGV[6] == '' then
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('ZREM', KEYS[3], ARGV[1])
  if ARGV[9] ~= '' then
    redis.call('SET', KEYS[6], ARGV[9])
  end
  local stamp = string.format('%.6f', now)
  redis.call('HSET', KEYS[1], 'completed', stamp)
  redis.call('HSET', KEYS[4], 'finished', stamp)
  for _, name in ipairs({ 'in', 'cached', 'out', 'total' }) do
    if usage[name] then
      redis.call('HINCRBY', KEYS[4], name, usage[name])
    end
  end
  if usage['cost'] then
    redis.call('HINCRBYFLOAT', KEYS[4], 'cost', usage['cost'])
  end
  for _, key in ipairs({ KEYS[1], KEYS[4], KEYS[5], KEYS[6], KEYS[7] }) do
    redis.call('EXPIRE', key, ARGV[8])
  end
else
  local lane
  if ARGV[6] ~= '' then
    lane = tonumber(ARGV[6])
  elseif redis.call('ZSCORE', KEYS[2], ARGV[1]) then
    lane = 2
  else
    lane = 3
  end
  redis.call('ZADD', KEYS[lane], string.format('%.6f', now + ARGV[7]), ARGV[1])
  redis.call('ZREM', KEYS[5 - lane], ARGV[1])
  for _, pair in ipairs({ { 'intend', 'intent_at' }, { 'start', 'started' }, { 'adopt', 'started' } }) do
    if ARGV[3] == pair[1] then
      redis.call('HSET', KEYS[1], pair[2], string.format('%.6f', now))
    end
  end
end
return 'moved'
