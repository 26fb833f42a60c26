"""The end that operators look after dead letters through, and the list by which a replay is answered."""

import asyncio
import logging
import re
import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Final

from prefactor_core.transport import BrokerError, DeadLetterEnd, DeadLetterMessage
from prefactor_redis.fleet import recorded_keys
from prefactor_redis.keys import Keys
from prefactor_redis.link import data, entries, integer, items
from prefactor_redis.scripts import IDS_AT_ONCE, REMOVE_DEAD, always, chunks
from prefactor_redis.servers import Links, links_to
from prefactor_redis.target import Target

logger = logging.getLogger("prefactor_redis")

_CONNECTIONS: Final = 2
_PAGE: Final = 100
_CLOSING_SECONDS: Final = 3.0
_ADDRESS: Final = re.compile(r"[0-9a-f]{32}")
_EXPIRY_SECONDS: Final = 3_600
"""After the reader's last look: it may be gone without a word."""
_MOST_ANSWERS: Final = 10_000
"""Those that wait to be taken. More are dropped: the reader is gone, or somebody else fills its list."""
_ANSWERS_AT_ONCE: Final = 500
_WAIT_SECONDS: Final = 1.0
_LOOKS: Final = 8
"""In that time. A blocking read would lose the answers in a reply that does not arrive."""

ANSWER: Final = always(f"""
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
if redis.call('LLEN', KEYS[2]) + #ARGV > {_MOST_ANSWERS} then return 0 end
redis.call('RPUSH', KEYS[2], unpack(ARGV))
redis.call('EXPIRE', KEYS[2], {_EXPIRY_SECONDS})
return 1
""")
"""``KEYS``: taken, answers. ``ARGV``: answers."""

TAKE: Final = always(f"""
local before = redis.call('GET', KEYS[1])
if not before then
  redis.call('DEL', KEYS[2])
elseif tonumber(ARGV[1]) > tonumber(before) then
  redis.call('LTRIM', KEYS[2], ARGV[1] - before, -1)
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', {_EXPIRY_SECONDS})
return redis.call('LRANGE', KEYS[2], 0, {_ANSWERS_AT_ONCE - 1})
""")
"""Returns the next answers, and removes those that were taken before: a reply that is lost loses none.

``KEYS``: taken, answers. ``ARGV``: how many the reader has taken."""


async def send_answers(links: Links, keys: Keys, address: str, answers: Sequence[bytes]) -> None:
    """Send answers to a reader. Nothing is sent to what is no address, or to nobody."""
    # An address comes out of an operation, which anybody may have written: it must name nothing else of ours.
    if not _ADDRESS.fullmatch(address):
        return
    own = keys.answers(address)
    for chunk in chunks(answers, _ANSWERS_AT_ONCE, len):
        await links.run(ANSWER, own, chunk)


class RedisDeadLetterEnd(DeadLetterEnd):
    """Dead letters in a stream for each partition."""

    def __init__(self, target: Target) -> None:
        self._keys = Keys(target.options.prefix)
        self._links = links_to(target, _CONNECTIONS)
        self._address: str | None = None
        self._taken = 0

    async def read(self) -> AsyncIterator[DeadLetterMessage]:
        """Yield every dead letter, a page in memory at a time; none where nobody has published yet."""
        for partition, keys in enumerate(await recorded_keys(self._links, self._keys)):
            start = b"-"
            while True:
                reply = await self._links.call("XRANGE", keys.dead, start, "+", "COUNT", _PAGE)
                page = entries(reply, b"r")
                for id_, stored in page:
                    yield DeadLetterMessage(stored, partition, id_)
                if len(page) < _PAGE:
                    break
                start = b"(" + page[-1][0]

    async def count(self) -> int:
        """Return the length of all streams."""
        all_keys = await recorded_keys(self._links, self._keys)
        return sum([integer(await self._links.call("XLEN", keys.dead)) for keys in all_keys])

    async def remove(self, dead: Sequence[DeadLetterMessage]) -> None:
        """Remove dead letters, and the streams that are empty then."""
        ids: dict[int, list[bytes]] = {}
        for one in dead:
            if not isinstance(one.receipt, bytes):
                raise TypeError("the dead letter is of another broker")
            ids.setdefault(one.partition, []).append(one.receipt)
        for partition, own in ids.items():
            key = self._keys.of(partition).dead
            for chunk in chunks(own, IDS_AT_ONCE):
                await self._links.run(REMOVE_DEAD, [key], chunk)

    async def open_answers(self) -> str:
        """Open the list that workers add answers to, and return its address."""
        if self._address is None:
            address = secrets.token_hex(16)
            self._taken = 0
            await self._take(address)
            self._address = address
        return self._address

    async def answers(self) -> list[bytes]:
        """Return the answers that have arrived, each once; none after about a second without any."""
        if self._address is not None:
            for _ in range(_LOOKS):
                if found := await self._take(self._address):
                    return found
                await asyncio.sleep(_WAIT_SECONDS / _LOOKS)
        return []

    async def disconnect(self) -> None:
        """Close the list of answers and all connections."""
        address, self._address = self._address, None
        try:
            if address is not None:
                async with asyncio.timeout(_CLOSING_SECONDS):
                    await self._links.call("DEL", *self._keys.answers(address))
        except (BrokerError, TimeoutError) as error:
            logger.debug("a list of answers was not deleted, and will expire: %s", error)
        finally:
            await self._links.aclose()

    async def _take(self, address: str) -> list[bytes]:
        own = self._keys.answers(address)
        found = [data(answer) for answer in items(await self._links.run(TAKE, own, [self._taken]))]
        self._taken += len(found)
        return found
