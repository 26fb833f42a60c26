"""The scripts that give a partition to an owner, keep it, take it back, and count crashes.

An owner that did not release its partition is blamed for a crash only if it is dead: nobody subscribes to its
channel any more. What can look dead and is not, a connection that was cut, is why blame is kept by token: an
owner that returns deletes its own. A server with another ``run_id`` than the owner had was restarted, or took
over from another one: it cannot know who is alive, and nobody is blamed.
"""

from typing import Final

from prefactor_redis.scripts import Script, fenced, owned

CRASHES: Final = 3
"""Owners that have to crash at the same place before the next one handles one operation at a time."""

_CRASHES: Final = """
local function run_id()
  local info = redis.pcall('INFO', 'server')
  return type(info) == 'string' and string.match(info, 'run_id:(%w+)')
end
local function subscribed(channel)
  local found = channel and redis.pcall('PUBSUB', 'NUMSUB', channel)
  return found and not found.err and found[2] > 0
end
-- A crash loop must not fill the server. Beyond the limit no crash is recorded, and the attempt that it ended
-- cannot be taken back.
local MOST = 64
local function accuse(token, id, head)
  redis.call('HSET', owner, 'head', head)
  if redis.call('HLEN', blame) < MOST then redis.call('HSET', blame, token, id or '') end
  return redis.call('HLEN', blame)
end
local function forgive(token, limit)
  local id = redis.call('HGET', blame, token)
  if not id then return end
  -- Whether this one made the partition isolated. It may have been isolated before for crashes at an earlier
  -- place; if so, three more make it isolated again.
  if redis.call('HLEN', blame) == limit then redis.call('HDEL', owner, 'isolated_until') end
  redis.call('HDEL', blame, token)
  take_back(id)
end
"""


def _counting(text: str) -> Script:
    return owned(_CRASHES + text)


ACQUIRE: Final = _counting("""
local milliseconds, name, channel, limit = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local holder = redis.call('GET', lease)
if holder and holder ~= token then return {0} end
redis.call('SET', lease, token, 'PX', milliseconds)
forgive(token, limit)
local first = first_id()
local head = redis.call('HGET', owner, 'head')
if head and head ~= first then
  redis.call('HDEL', owner, 'head')
  redis.call('DEL', blame)
end
if not first then redis.call('DEL', attempts) end
local here = run_id()
local before = redis.call('HGET', owner, 'token')
if first and before and before ~= token then
  -- It was not released: its owner crashed, or could not renew it.
  local begun, there = redis.call('HGET', owner, 'begun'), redis.call('HGET', owner, 'run_id')
  local restarted = here and there and here ~= there
  if restarted or subscribed(redis.call('HGET', owner, 'channel')) then
    take_back(begun)
  elseif accuse(before, begun, first) >= limit then
    redis.call('HSET', owner, 'isolated_until', redis.call('HGET', owner, 'seen') or last_id())
  end
end
redis.call('HDEL', owner, 'begun', 'channel', 'run_id')
redis.call('HSET', owner, 'token', token, 'name', name, 'since', redis.call('TIME')[1])
if channel ~= '' then redis.call('HSET', owner, 'channel', channel) end
if here then redis.call('HSET', owner, 'run_id', here) end
return {1, redis.call('HGET', owner, 'seen'), isolated_until()}
""")
"""``KEYS``: owned. ``ARGV``: token, lease in milliseconds, name, channel or '', crashes.

Returns ``{0}`` where it is somebody else's, else ``{1, seen or nothing, isolated until or nothing}``.
"""

RENEW: Final = fenced(
    _CRASHES
    + """
redis.call('PEXPIRE', lease, ARGV[2])
-- After a restart that the lease has outlived, its owner's death counts again from when it could be noticed.
if subscribed(redis.call('HGET', owner, 'channel')) then
  local here = run_id()
  if here and here ~= redis.call('HGET', owner, 'run_id') then redis.call('HSET', owner, 'run_id', here) end
end
return {1, last_id()}
"""
)
"""``KEYS``: owned. ``ARGV``: token, lease in milliseconds."""

RELEASE: Final = _counting("""
if redis.call('GET', lease) == token then redis.call('DEL', lease) end
if redis.call('HGET', owner, 'token') == token then
  take_back(redis.call('HGET', owner, 'begun'))
  if redis.call('XLEN', stream) == 0 then
    redis.call('DEL', stream, attempts, owner, blame)
  else
    redis.call('HDEL', owner, 'token', 'name', 'since', 'begun', 'channel', 'run_id')
  end
end
forgive(token, tonumber(ARGV[2]))
return {1}
""")
"""Says that an owner did not crash, whether it owns the partition still or somebody else does.

Takes back the attempt at what it had begun and not ended. Repeating it is harmless.

``KEYS``: owned. ``ARGV``: token, crashes."""

BEGIN: Final = fenced("""
local id = ARGV[2]
local begun = redis.call('HGET', owner, 'begun')
if begun == id then
  local recorded = redis.call('HGET', attempts, id)
  if recorded then return {1, tonumber(recorded)} end
else
  take_back(begun)
end
redis.call('HSET', owner, 'begun', id)
return {1, redis.call('HINCRBY', attempts, id, 1)}
""")
"""Records an attempt, once however often it is repeated. ``KEYS``: owned. ``ARGV``: token, id."""

WITHDRAW: Final = fenced("""
if redis.call('HGET', owner, 'begun') == ARGV[2] then
  take_back(ARGV[2])
  redis.call('HDEL', owner, 'begun')
end
return {1}
""")
"""Takes the owner's own attempt back. ``KEYS``: owned. ``ARGV``: token, id."""
