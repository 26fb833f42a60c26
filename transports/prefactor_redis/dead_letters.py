"""The end that operators look after dead letters through."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Final

from prefactor_core.transport import BrokerError, DeadLetterEnd, DeadLetterMessage
from prefactor_redis.answers import AnswerBox
from prefactor_redis.fleet import recorded_keys
from prefactor_redis.keys import Keys
from prefactor_redis.replies import entries, integer
from prefactor_redis.scripts import REMOVE_DEAD, chunks
from prefactor_redis.servers import links_to
from prefactor_redis.target import Target

logger = logging.getLogger("prefactor_redis")

_CONNECTIONS: Final = 2
_PAGE: Final = 100
_IDS_AT_ONCE: Final = 500
_LEAVING_SECONDS: Final = 3.0


class RedisDeadLetterEnd(DeadLetterEnd):
    """Dead letters in a stream for each partition."""

    def __init__(self, target: Target) -> None:
        self._keys = Keys(target.options.prefix)
        self._links = links_to(target, _CONNECTIONS)
        self._box: AnswerBox | None = None

    async def read(self) -> AsyncIterator[DeadLetterMessage]:
        """Yield every dead letter, a page in memory at a time; none where nobody has published yet."""
        for partition, keys in enumerate(await recorded_keys(self._links, self._keys)):
            start = b"-"
            while True:
                link = await self._links.of(keys.dead)
                page = entries(await link.call("XRANGE", keys.dead, start, "+", "COUNT", _PAGE), b"r")
                for id_, stored in page:
                    yield DeadLetterMessage(stored, partition, id_)
                if len(page) < _PAGE:
                    break
                start = b"(" + page[-1][0]

    async def count(self) -> int:
        """Return the length of all streams."""
        count = 0
        for keys in await recorded_keys(self._links, self._keys):
            link = await self._links.of(keys.dead)
            count += integer(await link.call("XLEN", keys.dead))
        return count

    async def remove(self, dead: Sequence[DeadLetterMessage]) -> None:
        """Remove dead letters, and the streams that are empty then."""
        ids: dict[int, list[bytes]] = {}
        for one in dead:
            if not isinstance(one.receipt, bytes):
                raise TypeError("the dead letter is of another broker")
            ids.setdefault(one.partition, []).append(one.receipt)
        for partition, own in ids.items():
            key = self._keys.of(partition).dead
            for chunk in chunks(own, _IDS_AT_ONCE):
                link = await self._links.of(key)
                await link.run(REMOVE_DEAD, [key], chunk)

    async def open_answers(self) -> str:
        """Open the list that workers add answers to, and return its address."""
        if self._box is None:
            box = AnswerBox(self._links, self._keys)
            await box.open()
            self._box = box
        return self._box.address

    async def answers(self) -> list[bytes]:
        """Return the answers that have arrived, each once; none after about a second without any."""
        return [] if self._box is None else await self._box.take()

    async def disconnect(self) -> None:
        """Close the list of answers and all connections."""
        box, self._box = self._box, None
        try:
            if box is not None:
                async with asyncio.timeout(_LEAVING_SECONDS):
                    await box.close()
        except (BrokerError, TimeoutError) as error:
            logger.debug("a list of answers was not deleted, and will expire: %s", error)
        finally:
            await self._links.close()
