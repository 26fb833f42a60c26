"""The intake of a bounded queue: any thread adds, without waiting; one event loop takes."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeAlias, TypeVar

from prefactor_core.exclusive import Exclusive
from prefactor_core.queue.admission import Admission
from prefactor_core.queue.base import size_of

T = TypeVar("T")

BufferPolicy: TypeAlias = Literal["drop", "block"]
"""What a full buffer does: drop an operation with its dependents and count them, or have the caller wait."""

UNBOUNDED: Final = 1 << 62

_UNSORTED: Final = 512
"""Items that wait to be admitted; then whoever adds one admits them all, unless another thread does so."""
_MOST_UNSORTED: Final = 2_048
"""Items that may wait meanwhile; then whoever adds one waits for its turn."""
_MORE_UNSORTED: Final = 512
"""How many more there can be, since each of many threads may add one at the same time."""
_SMALL: Final = 8 * 1024
"""Bytes of an item that may wait."""
_MOST_OPENED: Final = 3
"""Items that one item can take room for: itself, and what closes what it opens."""


@dataclass(frozen=True, slots=True)
class BufferBounds:
    """How much a buffer holds, and what it does when it is full."""

    max_items: int = UNBOUNDED
    max_bytes: int = UNBOUNDED
    policy: BufferPolicy = "drop"


class Intake(Generic[T]):
    """What was added and not taken, in order, within bounds that also cover what was taken and not freed.

    While there is plenty of room, an item is only appended, which needs no lock: with one, threads that
    record at once stand in line for each other. It is admitted when it is taken. Once there is not, each
    item is admitted, or dropped and counted, as it is added.

    A finaliser or a signal handler may add amid any call.
    """

    def __init__(self, bounds: BufferBounds, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._bounds = bounds
        self._blocks = bounds.policy == "block"
        bounded = bounds.max_items < UNBOUNDED or bounds.max_bytes < UNBOUNDED
        self._admission: Admission | None = None
        if bounded and not self._blocks:
            self._admission = Admission(bounds.max_items, bounds.max_bytes, monotonic)
        self._new: deque[T] = deque()  # not admitted yet
        self._admitted: deque[T] = deque()
        self._turn = Exclusive()
        self._admitting = False
        self._number = 0  # of what was admitted or dropped
        self.items = 0
        """Items that were admitted and not freed."""
        self.bytes = 0
        """Bytes of those."""
        self._roomy = self._losing = False
        self._judge_room()
        self._asleep = False
        self._rouse: Callable[[], object] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._blocked: deque[Future[None]] = deque()

    # -- adding, in any thread

    def add(self, item: T, size: int) -> None:
        """Take an item of so many bytes, or drop and count it. Never waits."""
        if (
            self._roomy
            and size <= _SMALL
            and len(self._new) < _MOST_UNSORTED
            and not (self._losing and self._admission is not None and self._admission.loses(item))
        ):
            self._new.append(item)
            if len(self._new) >= _UNSORTED and not self._admitting:
                self._turn.hold(self._admit_new)
        else:
            self._turn.hold(self._admit, item)
        if self._asleep:
            self._wake()

    def fits(self, size: int) -> bool:
        """Whether so many bytes more would be within the bounds; anything is, if nothing is there."""
        return self._turn.hold(self._fits, size)

    @property
    def overfull(self) -> bool:
        """Whether more is there than the bounds allow: only with the policy ``block``, whose callers wait."""
        if self._roomy or not self._blocks:
            return False
        return self._turn.hold(self._is_overfull)

    async def until(self, ready: Callable[[], bool]) -> None:
        """Wait, in any event loop, until what was freed, or ``wake_blocked``, makes ``ready`` true."""
        while not ready():
            waiter = self._new_waiter()
            try:
                if not ready():
                    await asyncio.wrap_future(waiter)
            finally:
                self._forget_waiter(waiter)

    def block_until(self, ready: Callable[[], bool]) -> None:
        """Block this thread, as ``until`` waits."""
        while not ready():
            waiter = self._new_waiter()
            try:
                if not ready():
                    waiter.result()
            finally:
                self._forget_waiter(waiter)

    # -- the account, in any thread

    def __len__(self) -> int:
        return len(self._new) + len(self._admitted)

    @property
    def put_count(self) -> int:
        """How many items were added, dropped ones included."""
        return self._turn.hold(self._count_put)

    @property
    def held(self) -> int:
        """How many items were added and neither dropped nor freed."""
        return self._turn.hold(self._count_held)

    @property
    def dropped(self) -> Counter[str]:
        """How many items were dropped for want of room, by operation type."""
        return Counter() if self._admission is None else self._admission.dropped

    # -- taking, in the event loop

    def listen(self, rouse: Callable[[], object]) -> None:
        """Have ``rouse`` called once, in a later turn of this event loop, as soon as something is there."""
        self._rouse = rouse
        self._loop = asyncio.get_running_loop()
        self._asleep = True
        if len(self):  # it may have come before that was seen
            self._wake()

    def take(self, max_items: int = UNBOUNDED, max_bytes: int = UNBOUNDED) -> list[T]:
        """Return the first items, up to so many, or as many as reach so many bytes."""
        return self._turn.hold(self._take, max_items, max_bytes)

    def free(self, items: int, size: int) -> None:
        """Make room: so many items of so many bytes together are disposed of."""
        self._turn.hold(self._free, items, size)
        self.wake_blocked()

    def wake_blocked(self) -> None:
        """Have everybody who waits for something look again."""
        for waiter in list(self._blocked):
            with suppress(InvalidStateError):  # it was woken, or its caller cancelled, just now
                waiter.set_result(None)

    # -- in turn

    def _admit(self, item: T) -> None:
        self._new.append(item)
        self._admit_new()

    def _fits(self, size: int) -> bool:
        self._admit_new()
        bounds = self._bounds
        room = self.items < bounds.max_items and self.bytes + size <= bounds.max_bytes
        return room or self.items == 0

    def _is_overfull(self) -> bool:
        self._admit_new()
        beyond = self.items > self._bounds.max_items or self.bytes > self._bounds.max_bytes
        return beyond and self.items > 1

    def _count_put(self) -> int:
        return self._number + len(self._new)

    def _count_held(self) -> int:
        return self.items + len(self._new)

    def _take(self, max_items: int, max_bytes: int) -> list[T]:
        self._admit_new()
        taken: list[T] = []
        size = 0
        admitted = self._admitted
        while admitted and len(taken) < max_items and size < max_bytes:
            item = admitted.popleft()
            size += size_of(item)
            taken.append(item)
        return taken

    def _free(self, items: int, size: int) -> None:
        self.items -= items
        self.bytes -= size
        if not self._roomy:
            self._judge_room()

    def _admit_new(self) -> None:
        """Admit or drop what was appended."""
        if self._admitting:
            return  # amid that, by a finaliser say: the one that admits goes on to it
        self._admitting = True
        try:
            new, admission = self._new, self._admission
            while new:
                item = new[0]
                size = size_of(item)
                if admission is None or admission.admit(item, size, self.items, self.bytes):
                    self._admitted.append(item)
                    self.items += 1
                    self.bytes += size
                self._number += 1
                new.popleft()
            self._judge_room()
        finally:
            self._admitting = False

    def _judge_room(self) -> None:
        """Say whether all that may be appended before the next look is sure to fit."""
        admission = self._admission
        reserved = 0 if admission is None else admission.reserved
        self._losing = admission is not None and admission.has_lost
        bounds, unsorted = self._bounds, _MOST_UNSORTED + _MORE_UNSORTED
        self._roomy = (
            self.items + reserved + _MOST_OPENED * unsorted <= bounds.max_items
            and self.bytes + _SMALL * unsorted <= bounds.max_bytes - bounds.max_bytes // 8
        )

    def _wake(self) -> None:
        self._asleep = False
        rouse, loop = self._rouse, self._loop
        if rouse is None or loop is None or loop.is_closed():
            return  # what waits is counted as left
        with suppress(RuntimeError):  # it was closed just now
            if _runs_a_task(loop):
                loop.call_soon(rouse)
            else:
                # In the loop's own thread too: this may be a signal handler, which comes while the loop
                # sleeps, or before whoever takes can hear.
                loop.call_soon_threadsafe(rouse)

    def _new_waiter(self) -> Future[None]:
        waiter: Future[None] = Future()
        self._blocked.append(waiter)
        return waiter

    def _forget_waiter(self, waiter: Future[None]) -> None:
        with suppress(ValueError):
            self._blocked.remove(waiter)


def _runs_a_task(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this is called by a task of that event loop, which goes on to what is to be called soon."""
    try:
        return asyncio.get_running_loop() is loop and asyncio.current_task() is not None
    except RuntimeError:  # no event loop runs here
        return False
