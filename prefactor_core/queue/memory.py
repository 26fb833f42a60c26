"""The queue in memory, and the plugin that makes it the transport for ``memory://``."""

from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, ClassVar, Final, TypeVar
from urllib.parse import urlsplit

from prefactor_core.config import PrefactorCoreConfig
from prefactor_core.exceptions import QueueClosedError, TransportError
from prefactor_core.hookspecs import hookimpl
from prefactor_core.queue.base import DeadLetter, Delivery, DirectQueue, size_of
from prefactor_core.queue.intake import UNBOUNDED, BufferBounds, BufferPolicy, Intake
from prefactor_core.waiters import Waiters, in_time

T = TypeVar("T")

DEAD_LETTERS_KEPT: Final = 1_000
"""Dead letters that are kept to look at; the oldest make room."""


class InMemoryQueue(DirectQueue[T]):
    """A queue in this process: what it holds is gone when the process dies.

    It is unbounded unless it is given bounds, of items and bytes that wait or are handed out. With the policy
    ``drop``, ``put`` drops what does not fit with its dependents, and counts them in ``dropped``; with
    ``block`` it waits for room.
    """

    in_memory: ClassVar[bool] = True

    def __init__(
        self, max_items: int | None = None, max_bytes: int | None = None, *, policy: BufferPolicy = "drop"
    ) -> None:
        items, size = (UNBOUNDED if bound is None else bound for bound in (max_items, max_bytes))
        bounds = BufferBounds(items, size, policy)
        self.blocks = policy == "block"
        self._intake: Intake[T] = Intake(bounds)
        self._returned: deque[Delivery[T]] = deque()  # goes before what was never handed out
        self._getters = Waiters()
        self._flushers = Waiters()
        self._closed = False
        self._handed_out = 0
        self._dead_letters: deque[DeadLetter[T]] = deque(maxlen=DEAD_LETTERS_KEPT)
        self.settled = 0
        """Items that were settled (or handed out for good by ``get``)."""
        self.dead_lettered = 0
        """Items that were dead-lettered, whether or not they are still kept."""
        self.discarded = 0
        """Items that were dropped by ``discard``."""

    # -- putting

    async def put(self, item: T) -> None:
        """Take an item, or drop and count it if it does not fit. Waits only with the policy ``block``."""
        if self.blocks:
            size = size_of(item)
            await self._intake.until(lambda: self._closed or self._intake.fits(size))
        self.offer(item)

    def offer(self, item: T) -> None:
        """Take an item, or drop and count it; never waits."""
        if self._closed:
            raise QueueClosedError("put() on a closed queue: nothing more is taken")
        self._intake.add(item, size_of(item))

    @property
    def overfull(self) -> bool:
        """Whether a caller of ``offer`` is to wait for room now."""
        return self._intake.overfull

    async def room(self) -> None:
        """Wait until the queue is not ``overfull``, or closed."""
        await self._intake.until(self._is_within_bounds)

    def block_for_room(self) -> None:
        """Block this thread until the queue is not ``overfull``, or closed."""
        self._intake.block_until(self._is_within_bounds)

    @property
    def put_count(self) -> int:
        """How many items' ``put`` returned, dropped ones included."""
        return self._intake.put_count

    @property
    def dropped(self) -> Counter[str]:
        """How many items were dropped for want of room, by operation type."""
        return self._intake.dropped

    # -- receiving

    async def get(self) -> T:
        """Remove the next item and return it; handing it out settles it."""
        deliveries = await self.receive(1, 1)
        await self.settle(deliveries)
        return deliveries[0].item

    async def receive(self, max_items: int, max_bytes: int) -> list[Delivery[T]]:
        """Return the deliveries at the head, waiting for the first."""
        while not (taken := self._take(max_items, max_bytes)):
            if self._closed:
                raise QueueClosedError("the queue is closed, and everything in it was handed out")
            self._intake.listen(self._getters.wake_one)
            await self._getters.wait()
        for delivery in taken:
            delivery.receipt = self
        self._handed_out += len(taken)
        if self.size():
            self._getters.wake_one()
        elif self._getters:
            self._intake.listen(self._getters.wake_one)
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
        self._returned.extendleft(reversed(held))
        self._getters.wake_one()

    async def discard(self) -> int:
        """Drop everything that waits, count it in ``discarded``, and return how many items that was."""
        gone = self._take(UNBOUNDED, UNBOUNDED)
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
        return len(self._returned) + len(self._intake)

    async def depth(self) -> int:
        """Return how many items are unsettled: waiting or handed out."""
        return self.unsettled

    @property
    def unsettled(self) -> int:
        """How many items wait or are handed out."""
        return self.size() + self._handed_out

    async def flush(self, timeout: float) -> bool:
        """Wait until everything put is settled or dead-lettered, for ``timeout`` seconds at most."""
        return self.unsettled == 0 or await in_time(self._flushers.wait(), timeout)

    async def close(self, num_waiters: int = 1) -> None:
        """Take nothing more and wake every waiter. Closing again does nothing."""
        del num_waiters  # this queue knows who waits
        self._closed = True
        self._getters.wake_all()
        self._intake.wake_blocked()

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    # -- inside

    def _take(self, max_items: int, max_bytes: int) -> list[Delivery[T]]:
        """Return the first that wait, up to so many, or as many as reach so many bytes."""
        taken: list[Delivery[T]] = []
        size = 0
        while self._returned and len(taken) < max_items and size < max_bytes:
            delivery = self._returned.popleft()
            size += delivery.size
            taken.append(delivery)
        if len(taken) < max_items and size < max_bytes:
            taken += map(Delivery, self._intake.take(max_items - len(taken), max_bytes - size))
        return taken

    def _dispose(self, deliveries: Sequence[Delivery[T]]) -> int:
        """Let go of deliveries, and return how many that were: repeating a disposal does nothing."""
        count = size = 0
        for delivery in deliveries:
            if delivery.receipt is self:
                delivery.receipt = None
                size += delivery.size
                count += 1
        self._handed_out -= count
        self._intake.free(count, size)
        if self.unsettled == 0:
            self._flushers.wake_all()
        return count

    def _is_within_bounds(self) -> bool:
        return self._closed or not self._intake.overfull


@hookimpl
def prefactor_create_queue(url: str, config: PrefactorCoreConfig) -> InMemoryQueue[Any] | None:
    """Build a bounded queue in memory."""
    parts = urlsplit(url)
    if parts.scheme != "memory":
        return None
    if parts.netloc or parts.path.strip("/") or parts.query:
        raise TransportError("transport_url: memory:// takes neither a host nor options")
    return InMemoryQueue(config.buffer_operations, config.buffer_bytes, policy=config.buffer_policy)
