"""Answers to a replay command: a list that only the command opens, and that expires."""

import asyncio
import re
import secrets
from collections.abc import Sequence
from typing import Final

from prefactor_redis.keys import Keys
from prefactor_redis.replies import data, items
from prefactor_redis.scripts import ALWAYS, Script, chunks
from prefactor_redis.servers import Links

_ADDRESS: Final = re.compile(r"[0-9a-f]{32}")
_EXPIRY_SECONDS: Final = 3_600
"""After the reader's last look: it may be gone without a word."""
_MOST: Final = 10_000
"""Answers that wait to be taken. More are dropped: the reader is gone, or somebody else fills its list."""
_AT_ONCE: Final = 500
_WAIT_SECONDS: Final = 1.0
_LOOKS: Final = 8
"""In that time. A blocking read would lose the answers in a reply that does not arrive."""

ANSWER: Final = Script(
    ALWAYS
    + f"""
if redis.call('EXISTS', KEYS[1]) == 0 or redis.call('LLEN', KEYS[2]) + #ARGV > {_MOST} then return 0 end
redis.call('RPUSH', KEYS[2], unpack(ARGV))
redis.call('EXPIRE', KEYS[2], {_EXPIRY_SECONDS})
return 1
"""
)
"""``KEYS``: taken, answers. ``ARGV``: answers."""

TAKE: Final = Script(
    ALWAYS
    + f"""
local before = redis.call('GET', KEYS[1])
if not before then
  redis.call('DEL', KEYS[2])
elseif tonumber(ARGV[1]) > tonumber(before) then
  redis.call('LTRIM', KEYS[2], ARGV[1] - before, -1)
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', {_EXPIRY_SECONDS})
return redis.call('LRANGE', KEYS[2], 0, {_AT_ONCE - 1})
"""
)
"""Returns the next answers, and removes those that were taken before: a reply that is lost loses none.

``KEYS``: taken, answers. ``ARGV``: how many the reader has taken."""


async def send(links: Links, keys: Keys, address: str, answers: Sequence[bytes]) -> None:
    """Send answers to a reader. Nothing is sent to what is no address, or to nobody."""
    # An address comes out of an operation, which anybody may have written: it must name nothing else of ours.
    if not _ADDRESS.fullmatch(address):
        return
    own = keys.answers(address)
    for chunk in chunks(answers, _AT_ONCE, len):
        link = await links.of(own.answers)
        await link.run(ANSWER, (own.taken, own.answers), chunk)


class AnswerBox:
    """Where the answers for one reader arrive."""

    def __init__(self, links: Links, keys: Keys) -> None:
        self.address = secrets.token_hex(16)
        self._links = links
        self._keys = keys.answers(self.address)
        self._taken = 0

    async def open(self) -> None:
        """Let answers arrive."""
        await self._look()

    async def take(self) -> list[bytes]:
        """Return the answers that have arrived, each once; none after about a second without any."""
        for _ in range(_LOOKS):
            if found := await self._look():
                return found
            await asyncio.sleep(_WAIT_SECONDS / _LOOKS)
        return []

    async def close(self) -> None:
        """Take nothing more."""
        link = await self._links.of(self._keys.answers)
        await link.call("DEL", self._keys.taken, self._keys.answers)

    async def _look(self) -> list[bytes]:
        link = await self._links.of(self._keys.answers)
        reply = await link.run(TAKE, (self._keys.taken, self._keys.answers), [self._taken])
        found = [data(answer) for answer in items(reply)]
        self._taken += len(found)
        return found
