"""The queue in memory, and the plugin that makes it the transport for ``memory://``."""

import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, ClassVar, Final, Literal, TypeVar
from urllib.parse import urlsplit

from prefactor_core.config import PrefactorCoreConfig
from prefactor_core.exceptions import QueueClosedError, TransportError
from prefactor_core.hookspecs import hookimpl
from prefactor_core.queue.admission import Admission
from prefactor_core.queue.base import DeadLetter, Delivery, Queue
from prefactor_core.waiters import Waiters, in_time

T = TypeVar("T")

_UNBOUNDED: Final = 1 << 62

DEAD_LETTERS_KEPT: Final = 1_000
"""Dead letters that are kept to look at; the oldest make room."""


class InMemoryQueue(Queue[T]):
    """A queue in this process: what it holds is gone when the process dies.

    It is unbounded unless it is given bounds, of items and bytes that wait or are handed out. With the policy
    ``drop``, ``put`` drops what does not fit with its dependents, and counts them in ``dropped``; with
    ``block`` it waits for room.
    """

    in_memory: ClassVar[bool] = True

    def __init__(
        self,
        max_items: int | None = None,
        max_bytes: int | None = None,
        *,
        policy: Literal["drop", "block"] = "drop",
    ) -> None:
        self._waiting: deque[Delivery[T]] = deque()
        self._getters = Waiters()
        self._putters = Waiters()
        self._flushers = Waiters()
        self._closed = False
        self._handed_out = 0
        self._bytes = 0
        self._max_items = max_items if max_items is not None else _UNBOUNDED
        self._max_bytes = max_bytes if max_bytes is not None else _UNBOUNDED
        self._admission: Admission | None = None
        self.immediate = policy == "drop"
        if self.immediate and (max_items is not None or max_bytes is not None):
            self._admission = Admission(self._max_items, self._max_bytes, time.monotonic)
        self._dead_letters: deque[DeadLetter[T]] = deque(maxlen=DEAD_LETTERS_KEPT)
        self.accepted = 0
        """Items whose ``put`` returned, dropped ones included."""
        self.settled = 0
        """Items that were settled (or handed out for good by ``get``)."""
        self.dead_lettered = 0
        """Items that were dead-lettered, whether or not they are still kept."""
        self.discarded = 0
        """Items that were dropped by ``discard``."""

    # -- putting

    async def put(self, item: T) -> None:
        """Take an item, or drop and count it if it does not fit. Waits only with the policy ``block``."""
        if not self.immediate:
            await self._wait_for_room(Delivery(item).size)
        if self._closed:
            raise QueueClosedError("put() on a closed queue: nothing more is taken")
        delivery = Delivery(item)
        self.accepted += 1
        if self._admission is not None and not self._admission.admit(
            item, delivery.size, len(self._waiting) + self._handed_out, self._bytes
        ):
            return
        self._bytes += delivery.size
        self._waiting.append(delivery)
        self._getters.wake_one()

    @property
    def dropped(self) -> Counter[str]:
        """How many items were dropped for want of room, by operation type."""
        return Counter() if self._admission is None else self._admission.dropped

    # -- receiving

    async def get(self) -> T:
        """Remove the next item and return it; handing it out settles it."""
        deliveries = await self.receive(1, 1)
        await self.settle(deliveries)
        return deliveries[0].item

    async def receive(self, max_items: int, max_bytes: int) -> list[Delivery[T]]:
        """Return the deliveries at the head, waiting for the first."""
        while not self._waiting:
            if self._closed:
                raise QueueClosedError("the queue is closed, and everything in it was handed out")
            await self._getters.wait()
        taken: list[Delivery[T]] = []
        size = 0
        while self._waiting and len(taken) < max_items and size < max_bytes:
            delivery = self._waiting.popleft()
            size += delivery.size
            taken.append(delivery)
        for delivery in taken:
            delivery.receipt = self
        self._handed_out += len(taken)
        if self._waiting:
            self._getters.wake_one()
        return taken

    async def settle(self, deliveries: Sequence[Delivery[T]]) -> Sequence[Delivery[T]]:
        """Forget deliveries whose effect has happened; none is ever refused."""
        self.settled += self._dispose(deliveries)
        return ()

    async def dead_letter(
        self, dead_letters: Sequence[tuple[Delivery[T], DeadLetter[T]]]
    ) -> Sequence[Delivery[T]]:
        """Dead-letter deliveries; the last ``DEAD_LETTERS_KEPT`` can be looked at. None is ever refused."""
        self._dead_letters.extend(
            dead_letter for delivery, dead_letter in dead_letters if delivery.receipt is self
        )
        self.dead_lettered += self._dispose([delivery for delivery, _ in dead_letters])
        return ()

    async def release(self, deliveries: Sequence[Delivery[T]]) -> None:
        """Put deliveries back at the head, in their order."""
        held = [delivery for delivery in deliveries if delivery.receipt is self]
        for delivery in held:
            delivery.receipt = None
        self._handed_out -= len(held)
        self._waiting.extendleft(reversed(held))
        self._getters.wake_one()

    async def discard(self) -> int:
        """Drop everything that waits, count it in ``discarded``, and return how many items that was."""
        gone = list(self._waiting)
        self._waiting.clear()
        for delivery in gone:
            delivery.receipt = self
        self._handed_out += len(gone)
        self.discarded += len(gone)
        self._dispose(gone)
        return len(gone)

    def dead_letters(self) -> list[DeadLetter[T]]:
        """Return the dead letters that are still kept, oldest first."""
        return list(self._dead_letters)

    # -- the whole

    def size(self) -> int:
        """Return how many items wait to be handed out."""
        return len(self._waiting)

    async def depth(self) -> int:
        """Return how many items are unsettled: waiting or handed out."""
        return self.unsettled

    @property
    def unsettled(self) -> int:
        """How many items wait or are handed out."""
        return len(self._waiting) + self._handed_out

    async def flush(self, timeout: float) -> bool:
        """Wait until everything put is settled or dead-lettered, for ``timeout`` seconds at most."""
        return self.unsettled == 0 or await in_time(self._flushers.wait(), timeout)

    async def close(self, num_waiters: int = 1) -> None:
        """Take nothing more and wake every waiter. Closing again does nothing."""
        del num_waiters  # this queue knows who waits
        self._closed = True
        self._getters.wake_all()
        self._putters.wake_all()

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    # -- inside

    def _dispose(self, deliveries: Sequence[Delivery[T]]) -> int:
        """Let go of deliveries, and return how many that were: repeating a disposal does nothing."""
        count = 0
        for delivery in deliveries:
            if delivery.receipt is self:
                delivery.receipt = None
                self._bytes -= delivery.size
                count += 1
        self._handed_out -= count
        self._putters.wake_all()
        if self.unsettled == 0:
            self._flushers.wake_all()
        return count

    async def _wait_for_room(self, size: int) -> None:
        while (
            not self._closed
            and self.unsettled > 0
            and (self.unsettled >= self._max_items or self._bytes + size > self._max_bytes)
        ):
            await self._putters.wait()


@hookimpl
def prefactor_create_queue(url: str, config: PrefactorCoreConfig) -> InMemoryQueue[Any] | None:
    """Build a bounded queue in memory."""
    parts = urlsplit(url)
    if parts.scheme != "memory":
        return None
    if parts.netloc or parts.path.strip("/") or parts.query:
        raise TransportError("transport_url: memory:// takes neither a host nor options")
    return InMemoryQueue(config.buffer_operations, config.buffer_bytes, policy=config.buffer_policy)
