"""The end that operators look after dead letters through."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Final

from prefactor_core.broker.driver import DeadLetterEnd, DeadLetterMessage
from prefactor_core.exceptions import BrokerError
from prefactor_redis.answers import AnswerBox
from prefactor_redis.chunks import chunks
from prefactor_redis.keys import Keys
from prefactor_redis.links import Links
from prefactor_redis.partition_count import recorded_partitions
from prefactor_redis.replies import entries, integer
from prefactor_redis.scripts import REMOVE_DEAD
from prefactor_redis.servers import servers_of
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
        self._links = Links(
            servers_of(target), target.access, size=_CONNECTIONS, patience=target.options.timeout
        )
        self._box: AnswerBox | None = None

    async def read(self) -> AsyncIterator[DeadLetterMessage]:
        """Yield every record, a page in memory at a time; nothing where nobody has published yet.

        Raises:
            BrokerError: The broker is unavailable.
        """
        for partition in range(await recorded_partitions(self._links, self._keys) or 0):
            key = self._keys.of(partition).dead
            start = b"-"
            while True:
                link = await self._links.of(key)
                reply = await link.call("XRANGE", key, start, "+", "COUNT", _PAGE)
                page = entries(reply, b"r")
                for number, record in page:
                    yield DeadLetterMessage(record, partition, number)
                if len(page) < _PAGE:
                    break
                start = b"(" + page[-1][0]

    async def count(self) -> int:
        """Return how many records there are.

        Raises:
            BrokerError: The broker is unavailable.
        """
        count = 0
        for partition in range(await recorded_partitions(self._links, self._keys) or 0):
            key = self._keys.of(partition).dead
            link = await self._links.of(key)
            count += integer(await link.call("XLEN", key))
        return count

    async def remove(self, letters: Sequence[DeadLetterMessage]) -> None:
        """Remove records, and the streams that are empty then.

        Raises:
            BrokerError: It is not known whether that was done.
        """
        ids: dict[int, list[bytes]] = {}
        for letter in letters:
            if not isinstance(letter.receipt, bytes):
                raise TypeError("the dead letter is of another broker")
            ids.setdefault(letter.partition, []).append(letter.receipt)
        for partition, numbers in ids.items():
            key = self._keys.of(partition).dead
            for chunk in chunks(numbers, _IDS_AT_ONCE):
                link = await self._links.of(key)
                await link.run(REMOVE_DEAD, [key], chunk)

    async def open_answers(self) -> str:
        """Open the list that workers add answers to, and return its address.

        Raises:
            BrokerError: The broker is unavailable.
        """
        if self._box is None:
            box = AnswerBox(self._links, self._keys)
            await box.open()
            self._box = box
        return self._box.address

    async def answers(self) -> list[bytes]:
        """Return the answers that have arrived, each once; none after about a second without any.

        Raises:
            BrokerError: The broker is unavailable.
        """
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
