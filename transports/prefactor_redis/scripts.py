"""The scripts that run on the server, each on the keys of one partition.

Those that a worker runs are *fenced*: they compare the token of the lease, and do nothing for anybody else.
``KEYS[1]`` is the lease, ``KEYS[2]`` the operations and ``ARGV[1]`` the token. Refused, they return ``{0,
last id of the stream or ''}``, by which a lost stream is told from a lost lease; else ``{1, ...}``.

All but publishing carry ``allow-oom``: a full server must not refuse the very writes that drain it.
Publishing must be refused, and a script is refused as a whole: no batch is ever stored with holes.
"""

from dataclasses import dataclass, field
from hashlib import sha1
from typing import Final


@dataclass(frozen=True, slots=True)
class Script:
    """A script and the name by which a server that knows it runs it."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        # The name that Redis gives it; nothing is protected by it.
        object.__setattr__(self, "sha", sha1(self.text.encode(), usedforsecurity=False).hexdigest())


_ALWAYS: Final = "#!lua flags=allow-oom\n"
_LOOKING: Final = "#!lua flags=no-writes\n"
_IDS: Final = """
local function less(a, b)
  local am, as = string.match(a, '^(%d+)-(%d+)$')
  local bm, bs = string.match(b, '^(%d+)-(%d+)$')
  am, as, bm, bs = tonumber(am), tonumber(as), tonumber(bm), tonumber(bs)
  return am < bm or (am == bm and as < bs)
end
local function first_id(stream)
  local entries = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)
  return entries[1] and entries[1][1] or false
end
local function last_id(stream)
  if redis.call('EXISTS', stream) == 0 then return '' end
  local info = redis.call('XINFO', 'STREAM', stream)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
  return ''
end
"""
_FENCE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {0, last_id(KEYS[2])} end
"""
_FENCED: Final = _ALWAYS + _IDS + _FENCE
# KEYS[3] attempts, KEYS[4] owner. Returns whether the partition is careful still.
_STILL_CAREFUL: Final = """
local function still_careful()
  local careful_until = redis.call('HGET', KEYS[4], 'careful_until')
  if not careful_until then return 0 end
  local first = first_id(KEYS[2])
  if first and not less(careful_until, first) then return 1 end
  redis.call('HDEL', KEYS[4], 'careful_until', 'crashes', 'head')
  return 0
end
"""

PUBLISH: Final = Script("""#!lua
for i = 1, #ARGV do redis.call('XADD', KEYS[1], '*', 'e', ARGV[i]) end
return #ARGV
""")
"""``KEYS``: operations. ``ARGV``: envelopes."""

ACQUIRE: Final = Script(
    _ALWAYS
    + _IDS
    + """
local lease, stream, attempts, owner = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local token, milliseconds, name, crash_limit = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local holder = redis.call('GET', lease)
if holder and holder ~= token then return {0} end
redis.call('SET', lease, token, 'PX', milliseconds)
local first = first_id(stream)
local before = redis.call('HGET', owner, 'token')
if before and before ~= token then
  -- It was not released: its owner crashed, or could not renew it.
  if not first then
    redis.call('HDEL', owner, 'head', 'crashes', 'careful_until')
    redis.call('DEL', attempts)
  else
    local crashes = 1
    if redis.call('HGET', owner, 'head') == first then
      crashes = redis.call('HINCRBY', owner, 'crashes', 1)
    else
      redis.call('HSET', owner, 'head', first, 'crashes', 1)
    end
    if crashes >= crash_limit then
      redis.call('HSET', owner, 'careful_until', redis.call('HGET', owner, 'seen') or last_id(stream))
    end
  end
end
redis.call('HSET', owner, 'token', token, 'name', name, 'since', redis.call('TIME')[1])
local careful_until = redis.call('HGET', owner, 'careful_until')
if careful_until and (not first or less(careful_until, first)) then
  redis.call('HDEL', owner, 'careful_until', 'crashes', 'head')
  careful_until = false
end
return {1, redis.call('HGET', owner, 'seen'), careful_until}
"""
)
"""``KEYS``: lease, operations, attempts, owner. ``ARGV``: token, lease in milliseconds, name, crashes.

Returns ``{0}`` where it is somebody else's, else ``{1, seen or nothing, careful until or nothing}``.
"""

RENEW: Final = Script(_FENCED + "redis.call('PEXPIRE', KEYS[1], ARGV[2])\nreturn {1, last_id(KEYS[2])}\n")
"""``KEYS``: lease, operations. ``ARGV``: token, lease in milliseconds."""

RELEASE: Final = Script(
    _FENCED
    + """
redis.call('DEL', KEYS[1])
if ARGV[2] ~= '' and redis.call('HEXISTS', KEYS[3], ARGV[2]) == 1 then
  redis.call('HINCRBY', KEYS[3], ARGV[2], -1)
end
if redis.call('XLEN', KEYS[2]) == 0 then
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
else
  redis.call('HDEL', KEYS[4], 'token', 'name', 'since')
end
return {1}
"""
)
"""Takes back the attempt at what was begun and not ended: nobody crashed over it.

``KEYS``: lease, operations, attempts, owner. ``ARGV``: token, the id that was begun or nothing."""

SEE: Final = Script(
    _FENCED
    + """
local seen = redis.call('HGET', KEYS[3], 'seen')
if not seen or less(seen, ARGV[2]) then redis.call('HSET', KEYS[3], 'seen', ARGV[2]) end
return {1}
"""
)
"""Records, before they are handed out, how far messages were. ``KEYS``: lease, operations, owner.
``ARGV``: token, last id."""

BEGIN: Final = Script(_FENCED + "return {1, redis.call('HINCRBY', KEYS[3], ARGV[2], 1)}\n")
"""``KEYS``: lease, operations, attempts. ``ARGV``: token, id."""

SETTLE: Final = Script(
    _FENCED
    + _STILL_CAREFUL
    + """
redis.call('XDEL', KEYS[2], unpack(ARGV, 2))
redis.call('HDEL', KEYS[3], unpack(ARGV, 2))
return {1, still_careful()}
"""
)
"""``KEYS``: lease, operations, attempts, owner. ``ARGV``: token, ids."""

DEAD_LETTER: Final = Script(
    _FENCED
    + _STILL_CAREFUL
    + """
for i = 2, #ARGV, 2 do
  redis.call('XADD', KEYS[5], '*', 'r', ARGV[i + 1])
  redis.call('XDEL', KEYS[2], ARGV[i])
  redis.call('HDEL', KEYS[3], ARGV[i])
end
return {1, still_careful()}
"""
)
"""``KEYS``: lease, operations, attempts, owner, dead. ``ARGV``: token, id, record, id, record, ..."""

REMOVE_DEAD: Final = Script(
    _ALWAYS
    + """
redis.call('XDEL', KEYS[1], unpack(ARGV))
if redis.call('XLEN', KEYS[1]) == 0 then redis.call('DEL', KEYS[1]) end
return 1
"""
)
"""``KEYS``: dead. ``ARGV``: ids."""

STATE: Final = Script(
    _LOOKING
    + _IDS
    + """
local name = false
if redis.call('EXISTS', KEYS[1]) == 1 then name = redis.call('HGET', KEYS[3], 'name') or '' end
return {redis.call('XLEN', KEYS[2]), redis.call('XLEN', KEYS[4]), name, first_id(KEYS[2])}
"""
)
"""``KEYS``: lease, operations, owner, dead."""

JOIN: Final = Script(
    _ALWAYS
    + """
local workers, token, milliseconds = KEYS[1], ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', workers, '-inf', now)
redis.call('ZADD', workers, now + milliseconds, token)
redis.call('PEXPIRE', workers, milliseconds)
-- Whoever emptied the server emptied this, too; agents that know the number go on by it.
if ARGV[3] ~= '' then redis.call('SET', KEYS[2], ARGV[3], 'NX') end
local members = redis.call('ZRANGE', workers, 0, -1)
table.sort(members)
for i, member in ipairs(members) do
  if member == token then return {#members, i - 1} end
end
"""
)
"""``KEYS``: workers, partitions. ``ARGV``: token, milliseconds, number of partitions or ''.

Returns the size of the fleet and one's place in it, from 0.
"""

LEAVE: Final = Script(_ALWAYS + "return redis.call('ZREM', KEYS[1], ARGV[1])\n")
"""``KEYS``: workers. ``ARGV``: token."""

DENIED: Final = Script(
    _LOOKING
    + """
local key, denied = KEYS[1], {}
local function try(...)
  if not redis.acl_check_cmd(...) then denied[#denied + 1] = string.upper((...)) end
end
try('get', key)
try('set', key, '1')
try('del', key)
try('exists', key)
try('pexpire', key, '1')
try('hget', key, 'f')
try('hset', key, 'f', '1')
try('hdel', key, 'f')
try('hincrby', key, 'f', '1')
try('xadd', key, '*', 'f', '1')
try('xdel', key, '1-1')
try('xlen', key)
try('xrange', key, '-', '+')
try('xinfo', 'stream', key)
try('xread', 'streams', key, '0')
try('zadd', key, '1', 'm')
try('zrem', key, 'm')
try('zrange', key, '0', '-1')
try('zremrangebyscore', key, '0', '1')
try('eval', 'return 1', '1', key)
try('evalsha', '', '1', key)
try('time')
try('wait', '0', '0')
return denied
"""
)
"""Returns the commands of ours that the user may not use on a key; runs none of them. ``KEYS``: any."""
