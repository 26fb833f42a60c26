"""The transport that the contract is held against, and what all parts of the contract have in common."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from prefactor_core.plugins import create_queue
from prefactor_core.testing.receiving import eventually
from prefactor_core.transport import BrokerQueue, Operation, PrefactorCoreConfig, Queue

PARTITIONS = 4


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
            object.__setattr__(self, "patience", 15.0 + 4 * self.dies_within)

    @property
    def stuck_url(self) -> str:
        """A place from which nothing goes on by itself: unreachable, or emptied by nobody but the test."""
        return self.unreachable_url or self.url

    def having(self, **options: object) -> Self:
        """Return this transport with options set in its URL: ``having(partitions=1)``."""
        parts = urlsplit(self.url)
        query = dict(parse_qsl(parts.query)) | {name: str(value) for name, value in options.items()}
        return replace(self, url=parts._replace(query=urlencode(query)).geturl())

    @asynccontextmanager
    async def opened(
        self, *put: Operation, url: str | None = None, **config: Any
    ) -> AsyncIterator[Queue[Operation]]:
        """Yield a queue that is closed and disconnected in the end.

        Args:
            *put: Operations that are put first.
            url: Where, if not at this transport's own.
            **config: Fields of ``PrefactorCoreConfig``.
        """
        queue = create_queue(url or self.url, PrefactorCoreConfig(**config))
        try:
            for operation in put:
                await queue.put(operation)
            yield queue
        finally:
            await queue.close()
            await queue.disconnect()

    @asynccontextmanager
    async def shared(
        self, *put: Operation, url: str | None = None, **config: Any
    ) -> AsyncIterator[BrokerQueue]:
        """As ``opened``, for transports on a broker."""
        async with self.opened(*put, url=url, **config) as queue:
            assert isinstance(queue, BrokerQueue), "a transport that others share is built on BrokerQueue"
            yield queue

    async def put(self, *operations: Operation) -> None:
        """Publish operations as an agent that ends when the broker has confirmed all of them."""
        async with self.opened(*operations) as agent:
            assert await agent.flush(self.patience), "publishing took too long"

    async def put_raw(self, partition: int, data: Iterable[bytes]) -> None:
        """Publish bytes that need not be envelopes."""
        async with self.shared() as queue, queue.broker.publishing() as end:
            await end.partitions()
            for one in data:
                await end.publish(partition, [one])

    async def leaves_nothing(self) -> None:
        """Wait until only what may stay is left."""
        assert self.leftovers is not None, "a transport says what it leaves on its broker"
        await eventually(self.leftovers, lambda names: set(names) <= set(self.keeps), self.patience)


class Contract:
    """Tests that need a ``transport``, with ``single`` or ``several`` partitions or as many as it has."""

    pytestmark: ClassVar[pytest.MarkDecorator] = pytest.mark.asyncio

    @pytest.fixture
    def transport(self) -> Transport:
        """Return the transport under test, at a place of its own. Every subclass overrides it."""
        raise NotImplementedError("override the fixture transport() in your subclass")

    @pytest.fixture
    def single(self, transport: Transport) -> Transport:
        """Return the transport with one partition."""
        return transport.having(partitions=1)

    @pytest.fixture
    def several(self, transport: Transport) -> Transport:
        """Return the transport with ``PARTITIONS`` partitions."""
        return transport.having(partitions=PARTITIONS)
