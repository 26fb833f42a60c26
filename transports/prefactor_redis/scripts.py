"""The scripts that put operations into a partition, hand them out and dispose of them."""

from typing import Final

from prefactor_redis.script import ALWAYS, FENCED, IDS, LOOKING, Script

# Ends what the owner had begun, and returns whether the partition is isolated still.
_ENDED: Final = """
local begun = redis.call('HGET', owner, 'begun')
local function ended(id)
  if begun == id then redis.call('HDEL', owner, 'begun') end
end
local function still_isolated()
  local isolated_until = redis.call('HGET', owner, 'isolated_until')
  if not isolated_until then return 0 end
  local first = first_id(stream)
  if first and not less(isolated_until, first) then return 1 end
  redis.call('HDEL', owner, 'isolated_until', 'head')
  redis.call('DEL', blame)
  return 0
end
"""

PUBLISH: Final = Script("""#!lua
for i = 1, #ARGV do redis.call('XADD', KEYS[1], '*', 'e', ARGV[i]) end
return #ARGV
""")
"""``KEYS``: operations. ``ARGV``: envelopes."""

SEE: Final = Script(
    FENCED
    + """
local seen = redis.call('HGET', owner, 'seen')
if not seen or less(seen, ARGV[2]) then redis.call('HSET', owner, 'seen', ARGV[2]) end
return {1}
"""
)
"""Records, before they are handed out, how far messages were. ``KEYS``: owned. ``ARGV``: token, last id."""

SETTLE: Final = Script(
    FENCED
    + _ENDED
    + """
redis.call('XDEL', stream, unpack(ARGV, 2))
redis.call('HDEL', attempts, unpack(ARGV, 2))
for i = 2, #ARGV do ended(ARGV[i]) end
return {1, still_isolated()}
"""
)
"""``KEYS``: owned. ``ARGV``: token, ids."""

DEAD_LETTER: Final = Script(
    FENCED
    + _ENDED
    + """
for i = 2, #ARGV, 2 do
  redis.call('XADD', KEYS[6], '*', 'r', ARGV[i + 1])
  redis.call('XDEL', stream, ARGV[i])
  redis.call('HDEL', attempts, ARGV[i])
  ended(ARGV[i])
end
return {1, still_isolated()}
"""
)
"""``KEYS``: owned, dead. ``ARGV``: token, id, record, id, record, ..."""

REMOVE_DEAD: Final = Script(
    ALWAYS
    + """
redis.call('XDEL', KEYS[1], unpack(ARGV))
if redis.call('XLEN', KEYS[1]) == 0 then redis.call('DEL', KEYS[1]) end
return 1
"""
)
"""``KEYS``: dead. ``ARGV``: ids."""

STATE: Final = Script(
    LOOKING
    + IDS
    + """
local name = false
if redis.call('EXISTS', KEYS[1]) == 1 then name = redis.call('HGET', KEYS[3], 'name') or '' end
return {redis.call('XLEN', KEYS[2]), redis.call('XLEN', KEYS[4]), name, first_id(KEYS[2])}
"""
)
"""``KEYS``: lease, operations, owner, dead."""
