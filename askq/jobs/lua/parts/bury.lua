-- bury: what a job leaves behind at its service is put down for deletion. Part of every script that ends a job or takes
-- a thread or a run out of its record; what it does is told by `objects.py`.
--
-- record: the job's hash   objects: its objects, name → JSON   buried: owner → when something of it is to be deleted
-- left: field, value, … of thread, run and witness, as far as the record has them no more, or has ended with them
-- ended: whether the job has ended; then what else it owns is buried with them
-- Leaves behind: the objects on record, each with a due time unless it is kept, and the earliest in `buried`.

local OBJECT_OF = {
  assistants = { thread = 'thread' },
  responses = { thread = 'conversation', run = 'response', witness = 'response' },
}
local TALK = { thread = true, conversation = true, response = true }

local function bury(record, objects, buried, id, left, ended, now, keep_s)
  local told = redis.call('HMGET', record, 'protocol', 'account', 'keep', 'state', 'next')
  local letters = told[3] or 'rr'
  if told[5] then
    -- The next question of its conversation needs them still; the last one leaves nothing behind.
    letters = string.gsub(letters, 'n', 'r')
  end
  local at_work = not ended or told[4] == 'uncertain'
  local function due(kind)
    local letter = TALK[kind] and string.sub(letters, 1, 1) or string.sub(letters, 2, 2)
    if letter == 'a' then
      return nil
    elseif letter == 'n' then
      return now + (at_work and math.min(86400, keep_s) or 0)
    end
    return now + keep_s
  end
  local known = {}
  if redis.call('EXISTS', objects) == 1 then
    local flat = redis.call('HGETALL', objects)
    for i = 1, #flat, 2 do
      known[flat[i]] = cjson.decode(flat[i + 1])
    end
  end
  local changed, first = {}, nil
  local function put(name, kind, entry)
    -- What was left behind on the way need wait no longer for a run that may have been at work in it.
    local at = (not entry.due or (ended and not at_work)) and due(kind)
    if at and (not entry.due or at < entry.due) then
      entry.due = at
      changed[#changed + 1] = name
      changed[#changed + 1] = cjson.encode(entry)
    elseif not entry.due then
      changed[#changed + 1] = name
      changed[#changed + 1] = cjson.encode(entry)
    end
  end
  for i = 1, #left, 2 do
    local kind = (OBJECT_OF[told[1]] or {})[left[i]]
    if kind and left[i + 1] ~= '' then
      local name = kind .. ' ' .. left[i + 1]
      known[name] = known[name] or { account = told[2] or nil }
      put(name, kind, known[name])
    end
  end
  for name, entry in pairs(known) do
    if ended then
      put(name, string.match(name, '^%S+'), entry)
    end
    if entry.due and (not first or entry.due < first) then
      first = entry.due
    end
  end
  -- Lua passes some thousand values at once, and a run that has made more files must not keep its job from ending.
  for at = 1, #changed, 1000 do
    redis.call('HSET', objects, unpack(changed, at, math.min(at + 999, #changed)))
  end
  if first then
    redis.call('ZADD', buried, string.format('%.6f', first), id)
  elseif ended and next(known) then
    redis.call('EXPIRE', objects, keep_s)
  end
end
