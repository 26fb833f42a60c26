"""What the scripts that run on the server are made of.

Each works on the keys of one partition. Those that an owner runs are *fenced*: they compare the token of the
lease, and do nothing for anybody else. Refused, they return ``{0, last id of the stream or ''}``, by which a
lost stream is told from a lost lease; else ``{1, ...}``. Their ``KEYS`` begin with ``PartitionKeys.owned``,
their ``ARGV`` with the token.

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
