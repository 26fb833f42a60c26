"""What the contract has to know of the transport that it is held against."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.config import PrefactorCoreConfig
from prefactor_core.operations import Operation
from prefactor_core.plugins import create_queue
from prefactor_core.queue.base import Queue

_USUAL_PATIENCE = 15.0


@dataclass(frozen=True, kw_only=True)
class Transport:
    """A transport and a place of its own for one test.

    Attributes:
        url: A place where nothing is yet: a new prefix, a new file. Its lease, or what it has
            instead, should be short.
        unreachable_url: The same transport where nobody answers, such as a port without a server. Only
            queues that end in this process have none.
        dies_within: Seconds after which a consumer that was killed or frozen has lost its partitions.
        leftovers: Returns what the transport keeps at ``url`` now, by name: keys, queues, tables with rows.
        keeps: Those names that may stay when everything is drained and all have ended cleanly.
        takes_garbage_of: Bytes of the largest message that the broker itself would take.
        counts_handed_out: Whether ``depth`` counts what was received and is not settled.
        patience: Seconds after which what should have happened counts as failed; by default 15, and four
            times ``dies_within``. A busy machine needs more.
    """

    url: str
    unreachable_url: str | None = None
    dies_within: float = 0.0
    leftovers: Callable[[], Awaitable[Collection[str]]] | None = None
    keeps: Collection[str] = ()
    takes_garbage_of: int = 5 * 1024 * 1024
    counts_handed_out: bool = True
    patience: float = 0.0

    def __post_init__(self) -> None:
        if not self.patience:
            object.__setattr__(self, "patience", _USUAL_PATIENCE + 4 * self.dies_within)

    @property
    def stuck_url(self) -> str:
        """A place from which nothing goes on by itself: unreachable, or emptied by nobody but the test."""
        return self.unreachable_url or self.url

    def at(self, url: str | None = None, **options: object) -> str:
        """Return ``url``, or that of this transport, with options set: ``at(partitions=1)``."""
        parts = urlsplit(url or self.url)
        query = dict(parse_qsl(parts.query)) | {name: str(value) for name, value in options.items()}
        return urlunsplit(parts._replace(query=urlencode(query)))

    @asynccontextmanager
    async def opened(self, url: str | None = None, **config: Any) -> AsyncIterator[Queue[Operation]]:
        """Yield a queue that is closed and disconnected in the end.

        Args:
            url: Where, if not at this transport's own.
            **config: Fields of ``PrefactorCoreConfig``.
        """
        queue = create_queue(url or self.url, PrefactorCoreConfig(**config))
        try:
            yield queue
        finally:
            await queue.close()
            await queue.disconnect()

    @asynccontextmanager
    async def shared(self, url: str | None = None, **config: Any) -> AsyncIterator[BrokerQueue]:
        """As ``opened``, for transports on a broker."""
        async with self.opened(url, **config) as queue:
            assert isinstance(queue, BrokerQueue), "a transport that others share is built on BrokerQueue"
            yield queue

    async def put(self, *operations: Operation, url: str | None = None) -> None:
        """Publish operations as an agent that ends when the broker has confirmed all of them."""
        async with self.opened(url) as agent:
            for operation in operations:
                await agent.put(operation)
            assert await agent.flush(self.patience), "publishing took too long"

    async def put_raw(self, partition: int, *data: bytes, url: str | None = None) -> None:
        """Publish bytes that need not be envelopes."""
        async with self.shared(url) as queue:
            end = queue.broker.publishing()
            try:
                await end.partitions()
                for one in data:
                    await end.publish(partition, [one])
            finally:
                await end.disconnect()
