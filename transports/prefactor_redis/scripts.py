"""The scripts that run on the server: what they are made of, and those that work on operations.

Each works on the keys of one partition. Those that an owner runs are *fenced*: they compare the token of the
lease, and do nothing for anybody else. Refused, they return ``{0, last id of the stream or ''}``, by which a
lost stream is told from a lost lease; else ``{1, ...}``. Their ``KEYS`` begin with ``PartitionKeys.owned``,
their ``ARGV`` with the token.

All but publishing carry ``allow-oom``: a full server must not refuse the very writes that drain it.
Publishing must be refused, and a script is refused as a whole: no batch is ever stored with holes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Final, TypeVar

T = TypeVar("T")

_BYTES_AT_ONCE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Script:
    """A script and the name by which a server that knows it runs it."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        # The name that Redis gives it; nothing is protected by it.
        object.__setattr__(self, "sha", sha1(self.text.encode(), usedforsecurity=False).hexdigest())


ALWAYS: Final = "#!lua flags=allow-oom\n"
LOOKING: Final = "#!lua flags=no-writes\n"
OWNED: Final = """
local lease, stream, attempts, owner, blame = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local token = ARGV[1]
"""
IDS: Final = """
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
FENCED: Final = (
    ALWAYS
    + OWNED
    + IDS
    + """
if redis.call('GET', lease) ~= token then return {0, last_id(stream)} end
"""
)
ATTEMPTS: Final = """
local function take_back(id)
  if not id or id == '' or redis.call('HEXISTS', attempts, id) == 0 then return end
  if redis.call('HINCRBY', attempts, id, -1) <= 0 then redis.call('HDEL', attempts, id) end
end
"""
"""``take_back(id)`` takes one attempt back; harmless for an operation without any, such as a settled one."""

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


def chunks(whole: Sequence[T], most: int, size: Callable[[T], int] = lambda _: 0) -> Iterator[list[T]]:
    """Yield consecutive parts that one script can take without holding up the server for long.

    Args:
        whole: What to part.
        most: How many each has at most.
        size: Bytes of one; a part has at most 1 MiB of them, or is a single one.
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
