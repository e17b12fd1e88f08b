-- lineage: which history of writes this server has. It is another one after a restart, and after another server has
-- taken over: then what was written last may be lost, however long ago it was.
--
-- Returns nil where the server does not tell.

local function lineage()
  local told = redis.pcall('INFO', 'replication')
  return type(told) == 'string' and string.match(told, 'master_replid:(%x+)') or nil
end
