-- forget: erase everything about a job that has ended, and put its remote objects down for deletion.
--
-- KEYS[1] job   KEYS[2] due:start   KEYS[3] due:poll   KEYS[4] count   KEYS[5] dead   KEYS[6] rows   KEYS[7] objects
-- KEYS[8] buried   KEYS[9] receipt   KEYS[10] functions   KEYS[11] calls   then other keys that belong to the job alone
-- ARGV[1] id   ARGV[2] row id   ARGV[3] ends, ',a,b,'   ARGV[4] what is forgotten   ARGV[5] seconds to keep a receipt
-- Returns 'moved'; 'not yours' (it has not ended); 'missing' (nothing is known of it).
-- Leaves behind: its remote objects as tombstones, due now; in the batch's counters one job less in its state and one
-- more that was forgotten, what it has used stays; in the receipt what was erased. Nothing else. A conversation that the
-- job has joined is on record for each of its questions: when all are forgotten, the receipt counts it with the first.

local state = redis.call('HGET', KEYS[1], 'state')
if state and not string.find(ARGV[3], ',' .. state .. ',', 1, true) then
  return 'not yours'
end
local listed = redis.call('ZREM', KEYS[6], ARGV[2])
local told = {}

local function tell(name)
  told[name] = (told[name] or 0) + 1
end

if redis.call('EXISTS', KEYS[7]) == 1 then
  local time = redis.call('TIME')
  local now = time[1] + time[2] / 1e6
  local flat = redis.call('HGETALL', KEYS[7])
  -- A mark alone is not enough: a question that is asked once more joins its own.
  local marks = redis.call('HEXISTS', KEYS[1], 'joined') + redis.call('HEXISTS', KEYS[1], 'after')
  local joined = marks == 2 and not string.find(ARGV[4], '#', 1, true)
  local thread = joined and redis.call('HGET', KEYS[1], 'thread')
  for i = 1, #flat, 2 do
    local entry = cjson.decode(flat[i + 1])
    local kind, id = string.match(flat[i], '^(%S+) (.*)$')
    if not entry.receipt then
      entry.also = thread == id and kind ~= 'response' or nil
      tell('due ' .. kind .. (entry.also and '+' or ''))
    end
    entry.due = entry.due and math.min(entry.due, now) or now
    entry.receipt = entry.receipt or ARGV[4]
    redis.call('HSET', KEYS[7], flat[i], cjson.encode(entry))
  end
  redis.call('PERSIST', KEYS[7])
  redis.call('ZADD', KEYS[8], string.format('%.6f', now), ARGV[1])
end
for _, call in ipairs(redis.call('HKEYS', KEYS[11])) do
  redis.call('ZREM', KEYS[10], call .. '/' .. ARGV[1])
end
for i = 11, #KEYS do
  redis.call('DEL', KEYS[i])
end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[5], ARGV[1])
if state then
  redis.call('HINCRBY', KEYS[4], state, -1)
end
if listed == 1 then
  redis.call('HINCRBY', KEYS[4], 'forgotten', 1)
end
if state or listed == 1 then
  tell('records')
end
for name, number in pairs(told) do
  redis.call('HINCRBY', KEYS[9], name, number)
end
if next(told) then
  redis.call('EXPIRE', KEYS[9], ARGV[5])
  return 'moved'
end
return 'missing'
