"""The inbox: deliveries that were read ahead and wait to be handed out, and who waits for them."""

from collections import deque
from collections.abc import Sequence

from prefactor_core.broker.owned_partition import OwnedPartition
from prefactor_core.operations import Operation
from prefactor_core.queue.base import Delivery
from prefactor_core.waiters import Waiters


class Inbox:
    """First in, first out. It is bounded by the quotas of the owned partitions that fill it."""

    def __init__(self) -> None:
        self._waiting: deque[Delivery[Operation]] = deque()
        self.receivers = Waiters()
        """Those who wait until there is something to look at."""

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, delivery: Delivery[Operation]) -> None:
        """Put a delivery at the end."""
        self._waiting.append(delivery)
        self.receivers.wake_one()

    def put_back(self, deliveries: Sequence[Delivery[Operation]]) -> None:
        """Put deliveries back at the head, in their order."""
        self._waiting.extendleft(reversed(deliveries))
        if deliveries:
            self.receivers.wake_one()

    def take(self, max_items: int, max_bytes: int) -> list[Delivery[Operation]]:
        """Return what is at the head and still ours to hand out."""
        taken: list[Delivery[Operation]] = []
        size = 0
        while self._waiting and len(taken) < max_items and size < max_bytes:
            delivery = self._waiting.popleft()
            if delivery.revoked:
                if isinstance(delivery.owner, OwnedPartition):
                    delivery.owner.forget([delivery])
                continue
            size += delivery.size
            taken.append(delivery)
        if taken and self._waiting:
            self.receivers.wake_one()
        return taken

    def forget(self, owned: OwnedPartition) -> None:
        """Drop what waits of a partition that is no longer ours."""
        owned.forget([delivery for delivery in self._waiting if delivery.owner is owned])
        self._waiting = deque(delivery for delivery in self._waiting if delivery.owner is not owned)

    def clear(self) -> None:
        """Drop everything."""
        self._waiting.clear()
