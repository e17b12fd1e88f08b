-- limit: give permits of one scope of an account, or take notice of what replies said of its limits.
--
-- KEYS[1] limit   KEYS[2] waits
-- ARGV[1] scope   ARGV[2] seconds to keep the record
-- ARGV[3] 'take': ARGV[4] bound in requests per second, 0 = none   ARGV[5] in tokens   ARGV[6] first window
--                 then the tokens of each call asked for
-- ARGV[3] 'learn': ARGV[4] calls that are over   ARGV[5] of those accepted   ARGV[6] refused
--                 ARGV[7] when the refused were granted   ARGV[8] seconds asked to wait or ''
--                 ARGV[9] '1' = refused against the headers
--                 ARGV[10] ARGV[11] ARGV[12] limit, remaining, reset of requests, each or ''
--                 ARGV[13] ARGV[14] ARGV[15] of tokens   ARGV[16] serial of the call that was told this
--                 ARGV[17] in tokens   ARGV[18] permits given back   ARGV[19] tokens of those
--                 ARGV[20] tokens put aside for runs that have ended   ARGV[21] what these used
--                 ARGV[22] first window
-- ARGV[3] 'look': nothing more
-- Returns {granted, wait, ready, rate or '', ratio, now, serial, serial in tokens, held, known}; numbers as text.
-- Leaves behind: the record, with an expiry; the scope in `waits` until its next permit while calls wait for one.
--
-- The rule is that of LimitRecord in limit_rule.py, where its why is written; a test compares both field by field.

local FLOOR, SHRINK, BELOW, LONGEST, OWED = 1 / 60, 0.7, 0.98, 3600, 86400
local MANY, NEARLY = 1000000, 1e-6
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local NAMES = { 'at', 'how', 'rate', 'burst', 'level', 'hold', 'window', 'grown', 'open', 'opened', 'full', 'first', 'taken',
  'empty', 'since', 'busy', 'held', 'bad', 'short', 'strikes', 'mute', 'trate', 'tburst', 'tlevel', 'given',
  'tgiven', 'ratio',
  'cap', 'clevel', 'tcap', 'tclevel' }
local r = {}
local kept = redis.call('HMGET', KEYS[1], unpack(NAMES))
for i, name in ipairs(NAMES) do
  r[name] = tonumber(kept[i] or '') or (name == 'ratio' and 1 or 0)
end

local function size()
  return math.max(1, r.cap)
end

local function tsize()
  return math.max(1, 10 * r.tcap)
end

local function refresh()
  if r.at - now > 1 then
    for _, name in ipairs({ 'hold', 'grown', 'opened', 'first', 'empty', 'short', 'mute' }) do
      if r[name] > 0 then
        r[name] = r[name] + now - r.at
      end
    end
  end
  if now - r.opened > 2 or now < r.opened then
    r.open = 0
  end
  local held = math.min(math.max(0, r.hold - r.at), math.max(0, now - r.at))
  r.held = r.held + held
  r.busy = r.busy + math.min(math.max(0, now - r.at - held), 0.5)
  local passed = r.full > 0 and r.open > 0 and 0 or math.max(0, now - r.at)
  r.at = now
  if r.how > 0 then
    r.level = math.min(r.burst, r.level + r.rate * passed)
  end
  if r.trate > 0 then
    r.tlevel = math.min(r.tburst, r.tlevel + r.trate * passed)
  end
  r.clevel = math.min(size(), r.clevel + r.cap * passed)
  r.tclevel = math.min(tsize(), r.tclevel + r.tcap * passed)
end

local function set_bound(cap, tcap)
  if cap ~= r.cap then
    local was = r.cap
    r.cap = cap
    r.clevel = r.first > 0 and was > 0 and math.min(r.clevel, size()) or size()
  end
  if tcap ~= r.tcap then
    local was = r.tcap
    r.tcap = tcap
    r.tclevel = r.first > 0 and was > 0 and math.min(r.tclevel, tsize()) or tsize()
  end
end

local function wait_for(tokens, first)
  local wait = 0
  if r.how > 0 and r.level < 1 - NEARLY then
    wait = (1 - r.level) / r.rate
  end
  if r.how == 0 and r.open >= r.window then
    wait = 0.02
  end
  local need = math.min(tokens, r.tburst)
  if r.trate > 0 and r.tlevel < need - NEARLY then
    wait = math.max(wait, (need - r.tlevel) / r.trate)
  end
  if first then
    wait = math.min(wait, math.max(0, r.opened + 1 / FLOOR - now))
  end
  if r.cap > 0 and r.clevel < 1 - NEARLY then
    wait = math.max(wait, (1 - r.clevel) / r.cap)
  end
  need = math.min(tokens, tsize())
  if r.tcap > 0 and r.tclevel < need - NEARLY then
    wait = math.max(wait, (need - r.tclevel) / r.tcap)
  end
  return wait
end

local function take()
  if r.window == 0 then
    r.window, r.at, r.grown = tonumber(ARGV[6]), now, now
  end
  set_bound(tonumber(ARGV[4]), tonumber(ARGV[5]))
  refresh()
  local granted, wait = 0, 0
  local brimming = r.how > 0 and r.level >= r.burst - NEARLY
  if r.hold > now then
    wait = #ARGV > 6 and r.hold - now or 0
  else
    for i = 7, #ARGV do
      local tokens = tonumber(ARGV[i])
      wait = wait_for(tokens, granted == 0 and r.opened > 0)
      if wait > 0 then
        wait = math.max(wait, 0.001)
        r.short = now
        break
      end
      granted = granted + 1
      r.open = r.open + 1
      r.given = r.given + 1
      r.tgiven = r.tgiven + tokens
      r.level = r.level - 1
      r.tlevel = r.tlevel - tokens
      r.clevel = r.clevel - 1
      r.tclevel = r.tclevel - tokens
    end
  end
  if granted > 0 then
    r.opened = now
    if brimming then
      r.full = 1
    end
    if r.first == 0 then
      r.first, r.grown = now, now
    end
  end
  return granted, math.min(wait, LONGEST)
end

local function seen()
  local passed = r.busy + r.held
  if r.empty == 0 or r.since < 2 or passed < 0.1 then
    return nil
  end
  local found = r.since / passed
  if r.how > 0 and r.burst < found * r.held and r.busy >= 0.1 and r.since > r.burst then
    return math.max(found, (r.since - r.burst) / r.busy)
  end
  return found
end

local function accepted(many, full)
  local free = tonumber(ARGV[22]) >= MANY / 2
  r.strikes = 0
  if free and r.how ~= 2 and r.empty ~= 0 and now - r.empty > 60 then
    r.how, r.window, r.empty, r.taken, r.bad, r.since = 0, MANY, 0, 0, 0, 0
  end
  if r.how == 0 then
    if r.empty == 0 then
      r.taken = r.taken + many
    end
    if now - r.grown >= 0.25 and full then
      local factor = r.empty == 0 and r.window < 32 and 2 or 1.25
      r.window, r.grown = math.min(factor * r.window, MANY), now
    end
  elseif r.how == 1 and (r.level < 2 or free) and now - r.empty > 3 then
    local growth = math.min(0.2, 0.003 * (now - r.empty))
    r.rate = r.rate * (1 + growth * math.min(free and 10 or 1, math.max(0, now - r.grown)))
    r.grown = now
  end
end

local function useful(limit, remaining)
  return remaining ~= nil and (limit == nil or limit > 0)
end

local function measured(held, free)
  local rate_ = seen()
  if now - r.short > 2 and not free then
    rate_ = nil
  elseif rate_ == nil then
    r.rate = r.rate * SHRINK
  elseif now - r.empty <= 20 then
    r.rate = math.max(SHRINK * r.rate, math.min(r.rate, rate_ * BELOW))
  else
    r.rate = math.min(SHRINK * r.rate, rate_)
  end
  r.rate = math.max(FLOOR, r.rate)
  if held >= 1 then
    r.burst = math.max(1, SHRINK * r.burst)
  end
end

local function searched()
  local rate_ = seen()
  if rate_ ~= nil and now - r.short <= 2 then
    r.how = 1
    r.rate = math.max(FLOOR, rate_ * BELOW)
    r.burst = math.max(1, r.rate, 0.9 * (r.taken - rate_ * (r.empty - r.first)))
    r.level = 0
  else
    r.window = r.strikes >= 2 and 1 or 2
  end
  r.grown = now
end

local function dense(pause)
  r.bad = r.bad + tonumber(ARGV[6])
  if r.bad + r.since > 100 then
    r.bad, r.since = r.bad / 2, r.since / 2
  end
  return (r.bad >= 5 and r.bad > 0.3 * (r.bad + r.since)) or (pause or 0) >= 5
end

local function refused(granted_at, pause, contradicted)
  local free = tonumber(ARGV[22]) >= MANY / 2
  if free and r.how ~= 2 and not dense(pause) then
    if r.empty ~= 0 then
      r.empty = r.empty + 0.25 * (now - r.empty)
    end
    return
  end
  local fresh = granted_at >= r.hold
  if fresh and tonumber(ARGV[5]) == 0 then
    r.strikes = r.strikes + 1
  end
  if pause == nil then
    pause = fresh and math.min(60, 0.25 * 2 ^ math.max(0, r.strikes - 1)) or 0
  end
  local held = r.level
  r.hold = math.max(r.hold, now + math.min(math.max(0.05, pause), LONGEST))
  r.level = math.min(r.level, 0)
  if not fresh then
    return
  end
  if r.how == 2 then
    if contradicted or not useful(tonumber(ARGV[10]), tonumber(ARGV[11])) then
      r.how = 1
      r.rate = math.max(FLOOR, SHRINK * r.rate)
    end
    if contradicted then
      r.mute = now + 30
    end
  elseif r.how == 1 then
    measured(held, free)
  else
    searched()
  end
  r.empty, r.since, r.busy, r.held, r.bad = now, 0, 0, 0, 0
end

local function of_a_part(limit, remaining, reset, known)
  if limit == nil or reset == nil or known >= limit then
    return false
  end
  return remaining < limit / 2 and limit - remaining >= 0.99 * limit * reset
end

local function told_burst(limit, remaining, known)
  return math.max(1, limit or known, remaining)
end

local function told_rate(limit, remaining, reset, known)
  if limit ~= nil and reset ~= nil and reset > 0 and limit - remaining >= 1 then
    return math.max(FLOOR, (limit - remaining) / reset)
  end
  return math.max(FLOOR, known > 0 and known or (limit or math.max(1, remaining)) / 60)
end

local function told_level(remaining, known, later)
  local least = remaining - math.max(0, later)
  return known == nil and least or math.max(math.min(known, remaining), least)
end

local function told()
  local limit, remaining, reset = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
  if useful(limit, remaining) then
    local known = r.how == 2
    if of_a_part(limit, remaining, reset, known and r.burst or 0) then
      r.burst = math.max(1, remaining + 1, known and r.burst or 0)
      r.rate = math.max(FLOOR, limit / 60)
    else
      r.burst = told_burst(limit, remaining, known and r.burst or 0)
      r.rate = told_rate(limit, remaining, reset, known and r.rate or 0)
    end
    r.how = 2
    r.level = math.min(r.burst, told_level(remaining, known and r.level or nil, r.given - ARGV[16]))
  end
  limit, remaining, reset = tonumber(ARGV[13]), tonumber(ARGV[14]), tonumber(ARGV[15])
  if useful(limit, remaining) then
    local known = r.trate > 0
    r.tburst = told_burst(limit, remaining, r.tburst)
    r.trate = math.max(told_rate(limit, remaining, reset, r.trate), r.tburst / LONGEST)
    r.tlevel = math.min(r.tburst, told_level(remaining, known and r.tlevel or nil, r.tgiven - ARGV[17]))
  end
end

local function learn()
  if r.window == 0 then
    r.window, r.at, r.grown, r.first = tonumber(ARGV[22]), now, now, now
  end
  refresh()
  local full = r.open >= r.window / 2
  local unused, unused_tokens = tonumber(ARGV[18]), tonumber(ARGV[19])
  local estimated, used = tonumber(ARGV[20]), tonumber(ARGV[21])
  r.open = math.max(0, r.open - ARGV[4] - unused)
  if tonumber(ARGV[4]) > 0 then
    r.full = 0
  end
  r.level = math.min(r.burst, r.level + unused)
  r.tlevel = math.min(r.tburst, r.tlevel + unused_tokens)
  r.clevel = math.min(size(), r.clevel + unused)
  r.tclevel = math.max(math.min(tsize(), r.tclevel + unused_tokens + estimated - used), -OWED * r.tcap)
  if estimated > 0 then
    local share = math.min(10, math.max(0.1, used / estimated * r.ratio))
    r.ratio = r.ratio + 0.1 * (share - r.ratio)
  end
  r.since = r.since + math.max(0, ARGV[4] - ARGV[6])
  if tonumber(ARGV[5]) > 0 then
    accepted(tonumber(ARGV[5]), full)
  end
  if tonumber(ARGV[6]) > 0 then
    refused(tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9] == '1')
  end
  if now >= r.mute and ARGV[9] ~= '1' then
    told()
  end
  return 0, math.max(0, r.hold - now)
end

local granted, wait = 0, 0
if ARGV[3] == 'take' then
  granted, wait = take()
elseif ARGV[3] == 'learn' then
  granted, wait = learn()
else
  refresh()
  wait = math.max(0, r.hold - now)
end

local function text(number)
  return string.format('%.17g', number)
end

if ARGV[3] ~= 'look' then
  local fields = {}
  for _, name in ipairs(NAMES) do
    fields[#fields + 1] = name
    fields[#fields + 1] = text(r[name])
  end
  redis.call('HSET', KEYS[1], unpack(fields))
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
if ARGV[3] == 'take' and #ARGV > 6 then
  if wait > 0 then
    redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', text(now - LONGEST))
    redis.call('ZADD', KEYS[2], text(now + wait), ARGV[1])
  else
    redis.call('ZREM', KEYS[2], ARGV[1])
  end
end

local ready, rate = MANY, ''
if r.how > 0 then
  ready, rate = r.level, r.rate
elseif r.window > 0 then
  ready = r.window - r.open
end
if r.cap > 0 then
  ready, rate = math.min(ready, r.clevel), rate == '' and r.cap or math.min(rate, r.cap)
end
if r.hold > now then
  ready = 0
end
return { granted, text(wait), text(math.max(0, ready)), rate == '' and '' or text(rate), text(r.ratio), text(now),
  text(r.given), text(r.tgiven), r.hold > now and 1 or 0, r.window > 0 and 1 or 0 }
