"""The sender for a queue that workers empty elsewhere."""

from collections.abc import Callable
from typing import ClassVar

from prefactor_core.operations import Operation
from prefactor_core.queue.base import Queue
from prefactor_core.senders.base import Progress, Sender


class RemoteSender(Sender):
    """For a queue that ends in a broker: it sends by itself, and what it has confirmed is delivered."""

    unconfirmed: ClassVar[bool] = True

    def __init__(self, queue: Queue[Operation]) -> None:
        self._queue = queue
        self.destination = queue.destination

    def start(self, on_failed: Callable[[], None]) -> None:
        """Do nothing: nothing fails for good, and the queue has begun."""

    def raise_failure(self, *, refused_call: bool = False) -> None:
        """Do nothing."""

    def progress(self, put_count: Callable[[], int]) -> Progress:
        """Ask the queue; of one that counts nothing but what waits, all else is delivered."""
        published = self._queue.published
        if published is not None:
            return Progress(put_count(), published.confirmed, dict(published.dropped), published.unconfirmed)
        # In this order, and none below 0: threads may be putting meanwhile.
        dropped = dict(self._queue.dropped)
        put = put_count()
        return Progress(put, max(0, put - self._queue.size() - sum(dropped.values())), dropped)

    async def flush(self, timeout: float) -> bool:
        """Wait until the queue has nothing unconfirmed."""
        return await self._queue.flush(timeout)

    async def stop(self, timeout: float) -> None:
        """Close, flush and disconnect the queue."""
        await self._queue.close(0)
        await self._queue.flush(timeout)
        await self._queue.disconnect()

    async def abort(self) -> None:
        """Disconnect the queue."""
        await self._queue.disconnect()

    async def leave(self) -> None:
        """Do nothing: the queue keeps what it has."""
