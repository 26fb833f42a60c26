"""What a worker has prefetched: of each partition that it owns, and in the inbox that deliveries leave."""

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import UTC
from enum import Enum
from typing import NamedTuple

from prefactor_core.broker.driver import Message, Partition
from prefactor_core.operations import Operation
from prefactor_core.queue.base import Delivery
from prefactor_core.waiters import Waiters, in_time


class Disposed(Enum):
    """What became of a delivery, in place of its receipt."""

    DONE = "done"
    REFUSED = "refused"


class Quota(NamedTuple):
    """How much may be prefetched of one partition; one message is always let in."""

    items: int
    bytes: int


class OwnedPartition:
    """One partition, as long as it is ours."""

    def __init__(self, partition: Partition, quota: Quota) -> None:
        self.partition = partition
        self.quota = quota
        self.releasing = False
        """Whether it is being released."""
        self._closed = False
        self._changed = asyncio.Event()
        self._prefetched: dict[Delivery[Operation], None] = {}
        self.bytes = 0
        """Bytes of what is prefetched."""
        self.reader: asyncio.Task[None] | None = None
        """The task that prefetches; the consumer owns it."""

    @property
    def items(self) -> int:
        """Messages received and not disposed of."""
        return len(self._prefetched)

    @property
    def oldest(self) -> float | None:
        """When the first of those was made, in seconds since the epoch."""
        first = next(iter(self._prefetched), None)
        if first is None:
            return None
        at = first.item.timestamp
        # Without a zone, local time is asked, which does not know each year of the calendar.
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()

    @property
    def current(self) -> bool:
        """Whether what was received may be carried out."""
        return not self.releasing and self.partition.held

    @property
    def reading(self) -> bool:
        """Whether more may be read."""
        return not self._closed and self.current

    def take(self, operation: Operation, message: Message, *, redelivered: bool) -> Delivery[Operation]:
        """Return the delivery of a message that was read, and count it as prefetched."""
        delivery = Delivery(operation, redelivered=redelivered)
        delivery.owner = self
        delivery.receipt = message
        self._prefetched[delivery] = None
        self.bytes += delivery.size
        return delivery

    def forget(self, deliveries: Sequence[Delivery[Operation]], what: Disposed = Disposed.DONE) -> None:
        """Count deliveries as disposed of."""
        for delivery in deliveries:
            if isinstance(delivery.receipt, Message):
                delivery.receipt = what
                del self._prefetched[delivery]
                self.bytes -= delivery.size
        self._changed.set()

    def begin_release(self) -> None:
        """Begin to release it: nothing more is read, and what has not begun is not carried out."""
        self.releasing = True
        self._changed.set()

    def close(self) -> None:
        """Read nothing more. What was received can still be carried out and disposed of."""
        self._closed = True
        self._changed.set()

    def room(self) -> tuple[int, int]:
        """Return how many more items and bytes may be read; 0 items if none may."""
        if self.partition.isolated:
            return (0, 0) if self.items else (1, 1)
        items, room = self.quota.items - self.items, self.quota.bytes - self.bytes
        return (max(0, items), room) if room > 0 or not self.items else (0, 0)

    async def wait_for_change(self, timeout: float) -> None:
        """Wait until something was disposed of, or the end has come, for ``timeout`` seconds at most."""
        self._changed.clear()
        await in_time(self._changed.wait(), timeout)


class Inbox:
    """Deliveries that can be received, first in, first out. The partitions' quotas bound it."""

    def __init__(self) -> None:
        self._deliveries: deque[Delivery[Operation]] = deque()
        self.receivers = Waiters()
        """Callers that wait for a delivery."""

    def __len__(self) -> int:
        return len(self._deliveries)

    def add(self, delivery: Delivery[Operation]) -> None:
        """Put a delivery at the end."""
        self._deliveries.append(delivery)
        self.receivers.wake_one()

    def put_back(self, deliveries: Sequence[Delivery[Operation]]) -> None:
        """Put deliveries back at the head, in their order."""
        self._deliveries.extendleft(reversed(deliveries))
        if deliveries:
            self.receivers.wake_one()

    def take(self, max_items: int, max_bytes: int) -> list[Delivery[Operation]]:
        """Return what is at the head and still ours to hand out."""
        taken: list[Delivery[Operation]] = []
        size = 0
        while self._deliveries and len(taken) < max_items and size < max_bytes:
            delivery = self._deliveries.popleft()
            if delivery.revoked:
                if isinstance(delivery.owner, OwnedPartition):
                    delivery.owner.forget([delivery])
                continue
            size += delivery.size
            taken.append(delivery)
        if taken and self._deliveries:
            self.receivers.wake_one()
        return taken

    def forget(self, owned: OwnedPartition) -> None:
        """Drop the deliveries of a partition that is no longer ours."""
        owned.forget([delivery for delivery in self._deliveries if delivery.owner is owned])
        self._deliveries = deque(delivery for delivery in self._deliveries if delivery.owner is not owned)

    def clear(self) -> None:
        """Drop everything."""
        self._deliveries.clear()
