-- audit_rows: check a page of one batch's rows in one shard, each job with its place in the schedule in one step; with
-- the last page, the counters against the recount.
--
-- KEYS[1] rows   KEYS[2] count   KEYS[3] due:start   KEYS[4] due:poll   KEYS[5] dead
-- ARGV[1] what the keys of the shard's records begin with   ARGV[2] of its questions   ARGV[3] of its answers
-- ARGV[4] batch   ARGV[5] first rank   ARGV[6] last rank   ARGV[7] '1' = repair   ARGV[8] '1' = judge the counters:
-- this is the last page, and the caller has made sure that the counters did not change since the first
-- ARGV[9] seconds to keep ended jobs   ARGV[10] seconds a job may be late   ARGV[11] seconds it may be due ahead
-- ARGV[12] seconds a job may be starting before it is told   ARGV[13] the error code of a dead letter
-- ARGV[14] JSON: state → 1 start lane, 2 poll lane, 0 ended
-- then the tally of the pages before, name, number, …
-- Returns {tally as a flat list, {{code, row, detail}, …}}.
-- Leaves behind: with repair, every pending job due in the lane of its state alone and kept, every ended job due
-- nowhere, with an expiry and among the dead letters if it is one, and counters that agree with the records. Without, nothing.

local batch, repair, judge = ARGV[4], ARGV[7] == '1', ARGV[8] == '1'
local keep, late, ahead, long = ARGV[9], tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
local poison, lane_of = ARGV[13], cjson.decode(ARGV[14])
local USED = { 'in', 'cached', 'out', 'total', 'cost' }
local tally, found = {}, {}
for i = 15, #ARGV, 2 do
  tally[ARGV[i]] = tonumber(ARGV[i + 1])
end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6

local function add(name, number)
  tally[name] = (tally[name] or 0) + number
end

local function tell(code, row, detail)
  found[#found + 1] = { code, row, detail or '' }
end

local function check_ended(id, row, record, scores)
  if scores[1] or scores[2] then
    tell('ended_but_due', row)
    if repair then
      redis.call('ZREM', KEYS[3], id)
      redis.call('ZREM', KEYS[4], id)
    end
  end
  if redis.call('TTL', ARGV[1] .. id) == -1 then
    tell('never_expires', row)
    if repair then
      for stem = 1, 3 do
        redis.call('EXPIRE', ARGV[stem] .. id, keep)
      end
    end
  end
  if (tonumber(record[2]) or 0) > (tonumber(record[3]) or 0) then
    tell('unseen_run', row)
  end
  if record[4] == poison then
    tell('poison', row)
    if not redis.call('ZSCORE', KEYS[5], id) then
      tell('misfiled', row)
      if repair then
        redis.call('ZADD', KEYS[5], record[7] or now, id)
      end
    end
  end
  for i, number in ipairs(redis.call('HMGET', ARGV[1] .. id, unpack(USED))) do
    add('used ' .. USED[i], tonumber(number) or 0)
  end
end

local function check_pending(id, row, record, scores, lane)
  local mine, other = scores[lane], scores[3 - lane]
  local due = tonumber(mine or other or now)
  if not mine and not other then
    tell('unscheduled', row)
  elseif other then
    tell('wrong_lane', row)
  elseif due < now - late then
    tell(lane == 1 and 'late start' or 'late', row, string.format('%.0f', now - due))
  elseif due > now + ahead then
    tell('far_ahead', row, string.format('%.0f', due - now))
  end
  if repair and (other or not mine) then
    redis.call('ZADD', KEYS[2 + lane], string.format('%.6f', due), id)
    redis.call('ZREM', KEYS[5 - lane], id)
  end
  if redis.call('TTL', ARGV[1] .. id) >= 0 then
    tell('pending_expires', row)
    if repair then
      redis.call('PERSIST', ARGV[1] .. id)
      redis.call('PERSIST', ARGV[2] .. id)
    end
  end
  local intended = tonumber(record[5])
  if record[1] == 'starting' and intended and intended < now - long then
    tell('starting', row, string.format('%.0f ', now - intended) .. (record[6] or ''))
  end
end

for _, row in ipairs(redis.call('ZRANGE', KEYS[1], ARGV[5], ARGV[6])) do
  local id = batch .. '.' .. row
  local record = redis.call('HMGET', ARGV[1] .. id, 'state', 'attempts', 'runs', 'error_code', 'intent_at', 'adigest',
    'completed', 'retries')
  add('rows', 1)
  if not record[1] then
    add('missing', 1)
    tell('missing', row)
  else
    add(record[1], 1)
    add('asked again', tonumber(record[8]) or 0)
    local lane = lane_of[record[1]]
    local scores = { redis.call('ZSCORE', KEYS[3], id), redis.call('ZSCORE', KEYS[4], id) }
    local attempts, runs = tonumber(record[2]) or 0, tonumber(record[3]) or 0
    if runs > attempts then
      tell(attempts == 0 and 'run_without_intent' or 'paid_twice', row, string.format('%d', runs - attempts))
    end
    if redis.call('EXISTS', ARGV[2] .. id) == 0 then
      tell('question_lost', row)
    end
    if lane == 0 then
      check_ended(id, row, record, scores)
    elseif lane then
      check_pending(id, row, record, scores, lane)
    end
  end
end

local said = {}

local function correct(name, number, format)
  tell('miscounted', '', string.format('%s: %s said, ' .. format .. ' counted', name, said[name] or 'nothing', number))
  if repair then
    redis.call('HSET', KEYS[2], name, string.format(format, number))
  end
end

-- The keys of a batch whose time is up go one after the other: nothing is to be learnt from them then.
local left = redis.call('PTTL', KEYS[1])
if judge and (left < 0 or left > 10000) then
  local flat = redis.call('HGETALL', KEYS[2])
  for i = 1, #flat, 2 do
    said[flat[i]] = flat[i + 1]
  end
  -- Ended jobs expire, and only the counters remember them: of a state that ends a job, more may have been counted
  -- than there are records, but for each of those there is a row without one.
  local missing, gone, over = tally['missing'] or 0, 0, {}
  for state, lane in pairs(lane_of) do
    local counted, known = tonumber(said[state]) or 0, tally[state] or 0
    if counted < known or (counted > known and (lane ~= 0 or missing == 0)) then
      correct(state, known, '%.0f')
    elseif counted > known then
      gone = gone + counted - known
      over[#over + 1] = state
    end
  end
  if gone < missing then
    tell('record_lost', '', string.format('%.0f', missing - gone))
  elseif gone > missing and #over == 1 then
    correct(over[1], (tally[over[1]] or 0) + missing, '%.0f')
  elseif gone > missing then
    tell('uncountable', '', string.format('%.0f more ended than there are rows', gone - missing))
  end
  -- What expired jobs have used, and the earlier runs of jobs that were asked again, only the counters remember.
  local exact = missing == 0 and (tally['asked again'] or 0) == 0 and not said['forgotten']
  for _, name in ipairs(USED) do
    local counted, known = tonumber(said[name]) or 0, tally['used ' .. name] or 0
    -- Prices are added up in another order than here; tokens beyond 2^53 are no exact numbers in Lua.
    local near = name == 'cost' and 1e-6 * math.max(1, known) or 0
    if known < 2 ^ 53 and (counted < known - near or (exact and counted > known + near)) then
      correct(name, known, name == 'cost' and '%.12g' or '%.0f')
    end
  end
end

local flat = {}
for name, number in pairs(tally) do
  flat[#flat + 1] = name
  flat[#flat + 1] = string.format('%.17g', number)
end
return { flat, found }
