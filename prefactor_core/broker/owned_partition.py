"""A partition while this process owns it, and what was received of it meanwhile."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from enum import Enum

from prefactor_core.broker.driver import Message, Partition
from prefactor_core.operations import Operation
from prefactor_core.queue.base import Delivery


class Disposed(Enum):
    """What became of a delivery, in place of its receipt."""

    DONE = "done"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Quota:
    """How much of one partition may be unsettled here at a time.

    Attributes:
        items: Messages.
        bytes: Their bytes; one message is always let in.
    """

    items: int
    bytes: int


class OwnedPartition:
    """One partition, as long as it is ours.

    Args:
        partition: The broker's side of it.
        quota: How much of it may be unsettled here.
    """

    def __init__(self, partition: Partition, quota: Quota) -> None:
        self.partition = partition
        self.quota = quota
        self._leaving = False
        self._closed = False
        self._changed = asyncio.Event()
        self._held: dict[Delivery[Operation], None] = {}
        self.bytes = 0
        """Bytes of those."""
        self.reader: asyncio.Task[None] | None = None
        """The task that reads ahead; the consumer owns it."""

    @property
    def items(self) -> int:
        """Messages received and not disposed of."""
        return len(self._held)

    @property
    def oldest(self) -> float | None:
        """When the first of those was made, in seconds since the epoch."""
        first = next(iter(self._held), None)
        if first is None:
            return None
        at = first.item.timestamp
        # Without a zone, local time is asked, which does not know each year of the calendar.
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()

    @property
    def leaving(self) -> bool:
        """Whether it is being given up."""
        return self._leaving

    @property
    def current(self) -> bool:
        """Whether what was received may be carried out."""
        return not self._leaving and self.partition.held

    def take(self, operation: Operation, message: Message, *, redelivered: bool) -> Delivery[Operation]:
        """Return the delivery of a message that was read, and count it as unsettled here."""
        delivery = Delivery(operation, redelivered=redelivered)
        delivery.owner = self
        delivery.receipt = message
        self._held[delivery] = None
        self.bytes += delivery.size
        return delivery

    def forget(self, deliveries: Sequence[Delivery[Operation]], what: Disposed = Disposed.DONE) -> None:
        """Count deliveries as disposed of."""
        for delivery in deliveries:
            if isinstance(delivery.receipt, Message):
                delivery.receipt = what
                del self._held[delivery]
                self.bytes -= delivery.size
        self._changed.set()

    def leave(self) -> None:
        """Begin to give it up: nothing more is read, and what has not begun is not carried out."""
        self._leaving = True
        self._changed.set()

    def close(self) -> None:
        """Read nothing more. What was received can still be carried out and disposed of."""
        self._closed = True
        self._changed.set()

    @property
    def reading(self) -> bool:
        """Whether more may be read."""
        return not self._closed and self.current

    def room(self) -> tuple[int, int]:
        """Return how many more items and bytes may be read; 0 items if none may."""
        if self.partition.isolated:
            return (0, 0) if self.items else (1, 1)
        items, room = self.quota.items - self.items, self.quota.bytes - self.bytes
        return (max(0, items), room) if room > 0 or not self.items else (0, 0)

    async def wait_for_change(self, timeout: float) -> None:
        """Wait until something was disposed of, or the end has come, for ``timeout`` seconds at most."""
        self._changed.clear()
        try:
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        except TimeoutError:
            pass
