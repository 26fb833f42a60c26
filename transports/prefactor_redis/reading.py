"""Reading a partition's stream from a cursor, over a connection of its own."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from prefactor_core.transport import BrokerError
from prefactor_redis.link import BEGINNING, Reply, entries, items
from prefactor_redis.servers import Links

Entry = tuple[bytes, bytes]
"""An id and what it is the id of."""

_FIRST_COUNT: Final = 64
_LARGEST_COUNT: Final = 128
"""Entries asked for at a time at most. Redis cannot bound a reply by bytes, and after many small entries
many large ones can follow: of 1 MiB at most each."""


class Cursor:
    """Reads a stream, each entry once. The server waits ``block`` seconds for one to come."""

    def __init__(self, key: bytes, links: Links, block: float, timeout: float) -> None:
        self._key = key
        self._links = links.single(block + timeout)
        self._block = max(1, int(block * 1_000))
        self._asking: asyncio.Task[Reply] | None = None
        self._closed = False
        self._mean: float | None = None
        self.surplus: deque[Entry] = deque()
        """Entries that ``take`` returns."""
        self.position = BEGINNING
        """The id up to which entries were taken."""

    async def fetch(self, max_items: int, max_bytes: int) -> list[Entry]:
        """Return what follows the position, about as much as wanted; nothing after a wait without any."""
        link = await self._links.of(self._key)
        self._require_open()  # nothing is connected yet, so that nothing is left open
        count = min(max_items, self._fitting(max_bytes))
        command = ("XREAD", "COUNT", count, "BLOCK", self._block, "STREAMS", self._key, self.position)
        asking = self._asking = asyncio.create_task(link.call(*command))
        try:
            await asyncio.wait({asking})
        finally:
            self._asking = None
            if not asking.done():
                asking.cancel()
                await asyncio.wait({asking})
            failure = None if asking.cancelled() else asking.exception()
        self._require_open()
        if failure is not None:
            await self._links.aclose()  # the next one goes to where the stream is then
            raise failure
        reply = asking.result()
        if reply is None:
            return []
        ((_, found),) = (items(stream) for stream in items(reply))
        return self._measured(entries(found, b"e"))

    def accept(self, found: Sequence[Entry]) -> None:
        """Move on behind what was fetched, and have ``take`` return it."""
        self.position = found[-1][0]
        self.surplus.extend(found)

    def take(self, max_items: int, max_bytes: int) -> list[Entry]:
        """Return accepted entries, at least one if there is any, up to about so many bytes."""
        taken: list[Entry] = []
        room = max_bytes
        while self.surplus and len(taken) < max_items:
            size = len(self.surplus[0][1])
            if taken and size > room:
                break
            room -= size
            taken.append(self.surplus.popleft())
        return taken

    def stop(self) -> None:
        """End a ``fetch`` in flight, and all later ones."""
        self._closed = True
        self.surplus.clear()
        if self._asking is not None:
            self._asking.cancel()

    async def close(self) -> None:
        """Stop, and close the connection."""
        self.stop()
        await self._links.aclose()

    def _require_open(self) -> None:
        if self._closed:
            raise BrokerError("reading was stopped: the partition was released or lost")

    def _fitting(self, max_bytes: int) -> int:
        if self._mean is None:
            return _FIRST_COUNT
        return max(1, min(_LARGEST_COUNT, int(max_bytes / self._mean)))

    def _measured(self, found: list[Entry]) -> list[Entry]:
        if found:
            mean = max(1.0, sum(len(value) for _, value in found) / len(found))
            # A rise counts at once and a fall slowly: too few at a time cost little, too many cost memory.
            self._mean = mean if self._mean is None or mean > self._mean else 0.8 * self._mean + 0.2 * mean
        return found
