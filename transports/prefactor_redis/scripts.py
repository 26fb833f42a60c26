"""The scripts that run on the server: what they are made of, and those that work on operations.

Each works on the keys of one partition. Those that an owner runs are *fenced*: they compare the token of the
lease, and do nothing for anybody else. Refused, they return ``{0, last id of the stream or ''}``, by which a
lost stream is told from a lost lease; else ``{1, ...}``. Their ``KEYS`` begin with ``PartitionKeys.owned``,
their ``ARGV`` with the token.

All but publishing carry ``allow-oom``: a full server must not refuse the very writes that drain it.
Publishing must be refused, and a script is refused as a whole: no batch is ever stored with holes.
"""

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha1
from typing import Final, TypeVar

T = TypeVar("T")

IDS_AT_ONCE: Final = 500
"""How many messages one script removes at most."""
_BYTES_AT_ONCE: Final = 1024 * 1024


class Script:
    """A script and the name by which a server that knows it runs it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = sha1(text.encode(), usedforsecurity=False).hexdigest()


_OWNED: Final = """
local lease, stream, attempts, owner, blame = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local token = ARGV[1]
local function less(a, b)
  local am, as = string.match(a, '^(%d+)-(%d+)$')
  local bm, bs = string.match(b, '^(%d+)-(%d+)$')
  am, as, bm, bs = tonumber(am), tonumber(as), tonumber(bm), tonumber(bs)
  return am < bm or (am == bm and as < bs)
end
local function first_id()
  local entries = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)
  return entries[1] and entries[1][1] or false
end
local function last_id()
  if redis.call('EXISTS', stream) == 0 then return '' end
  local info = redis.call('XINFO', 'STREAM', stream)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
  return ''
end
-- Takes one attempt back; harmless for an operation without any, such as a settled one.
local function take_back(id)
  if not id or id == '' or redis.call('HEXISTS', attempts, id) == 0 then return end
  if redis.call('HINCRBY', attempts, id, -1) <= 0 then redis.call('HDEL', attempts, id) end
end
-- Ends the isolation of a partition without anything from before it, and returns until which id it lasts.
local function isolated_until()
  local last, first = redis.call('HGET', owner, 'isolated_until'), first_id()
  if last and (not first or less(last, first)) then
    redis.call('HDEL', owner, 'isolated_until', 'head')
    redis.call('DEL', blame)
    return false
  end
  return last
end
-- Removes operations, and ends what the owner had begun of them; returns whether it is isolated still.
local function remove(ids)
  redis.call('XDEL', stream, unpack(ids))
  redis.call('HDEL', attempts, unpack(ids))
  local begun = redis.call('HGET', owner, 'begun')
  for _, id in ipairs(ids) do
    if id == begun then redis.call('HDEL', owner, 'begun') end
  end
  return isolated_until() and 1 or 0
end
"""


def always(text: str) -> Script:
    """Return a script that a full server runs, too."""
    return Script("#!lua flags=allow-oom\n" + text)


def looking(text: str) -> Script:
    """Return a script that changes nothing."""
    return Script("#!lua flags=no-writes\n" + text)


def owned(text: str) -> Script:
    """Return a script on the keys of a partition, with the functions that these have in common."""
    return always(_OWNED + text)


def fenced(text: str) -> Script:
    """Return a script that only the owner may run."""
    return owned("if redis.call('GET', lease) ~= token then return {0, last_id()} end" + text)


PUBLISH: Final = Script("""#!lua
for i = 1, #ARGV do redis.call('XADD', KEYS[1], '*', 'e', ARGV[i]) end
return #ARGV
""")
"""``KEYS``: operations. ``ARGV``: envelopes."""

SEE: Final = fenced("""
local seen = redis.call('HGET', owner, 'seen')
if not seen or less(seen, ARGV[2]) then redis.call('HSET', owner, 'seen', ARGV[2]) end
return {1}
""")
"""Records, before they are handed out, how far messages were. ``KEYS``: owned. ``ARGV``: token, last id."""

SETTLE: Final = fenced("""
return {1, remove({unpack(ARGV, 2)})}
""")
"""``KEYS``: owned. ``ARGV``: token, ids."""

DEAD_LETTER: Final = fenced("""
local ids = {}
for i = 2, #ARGV, 2 do
  redis.call('XADD', KEYS[6], '*', 'r', ARGV[i + 1])
  ids[#ids + 1] = ARGV[i]
end
return {1, remove(ids)}
""")
"""``KEYS``: owned, dead. ``ARGV``: token, id, dead letter, id, dead letter, ..."""

REMOVE_DEAD: Final = always("""
redis.call('XDEL', KEYS[1], unpack(ARGV))
if redis.call('XLEN', KEYS[1]) == 0 then redis.call('DEL', KEYS[1]) end
return 1
""")
"""``KEYS``: dead. ``ARGV``: ids."""

STATE: Final = looking("""
local name = false
if redis.call('EXISTS', KEYS[1]) == 1 then name = redis.call('HGET', KEYS[4], 'name') or '' end
local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
return {redis.call('XLEN', KEYS[2]), redis.call('XLEN', KEYS[6]), name, first and first[1] or false}
""")
"""``KEYS``: owned, dead."""


def chunks(whole: Sequence[T], most: int, size: Callable[[T], int] = lambda _: 0) -> Iterator[list[T]]:
    """Yield consecutive parts that one script can take without holding up the server for long.

    Each has at most ``most``, and at most 1 MiB by ``size`` or is a single one.
    """
    chunk: list[T] = []
    total = 0
    for one in whole:
        bytes_ = size(one)
        if chunk and (len(chunk) == most or total + bytes_ > _BYTES_AT_ONCE):
            yield chunk
            chunk, total = [], 0
        chunk.append(one)
        total += bytes_
    if chunk:
        yield chunk
