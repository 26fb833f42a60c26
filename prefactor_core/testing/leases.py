"""How long an owner is sure of its lease: never for longer than its broker is, however late that answers.

Answers are read late without the help of a driver: the event loop stands still while the broker answers what
was asked. So the driver reads the answer late, as it would behind a slow network or on a busy machine.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from itertools import product
from typing import Final

from prefactor_core.testing.drivers import consuming
from prefactor_core.testing.transport import Contract, Transport
from prefactor_core.transport import BrokerError, ConsumingEnd, Partition

_LOOK: Final = 0.005
_RENEWING: Final = 6
_ACQUIRING: Final = 4
# Parts of a lease. In the time of one, most drivers renew it three or four times.
_TURN: Final = 0.04
_LATE: Final = 0.35
"""Long enough to matter, and short enough that an owner is sure still when the answer comes."""
_READ: Final = 0.1
"""Long enough to read answers, and too short for the next renewal."""
_LONGEST: Final = 1.5


@contextmanager
def slow_turns(seconds: float) -> Iterator[None]:
    """Make each turn of the running event loop last for so long."""
    loop = asyncio.get_running_loop()
    following: asyncio.Handle

    def turn() -> None:
        nonlocal following
        time.sleep(seconds)
        following = loop.call_soon(turn)

    following = loop.call_soon(turn)
    try:
        yield
    finally:
        following.cancel()


def stand_still(seconds: float, busy: Callable[[], bool] = lambda: True) -> None:
    """Let nothing run in this thread, for so long or until ``busy`` is false; that is asked all the time."""
    deadline = time.monotonic() + seconds
    while busy() and time.monotonic() < deadline:
        time.sleep(_LOOK)


class Owner:
    """Somebody who acquires a partition, and from when to when it was sure to own it."""

    def __init__(self, end: ConsumingEnd, number: int) -> None:
        self.number = number
        self.since = 0.0
        self.until = 0.0
        """When it was last seen to be sure; before ``since`` if it never was."""
        self._end = end
        self._partition: Partition | None = None

    async def acquire(self) -> bool:
        """Try once to become the owner. A broker that is unavailable is as good as one that refuses."""
        with suppress(BrokerError):
            self._partition = await self._end.acquire(self.number, 100)
        if self._partition is None:
            return False
        self.since, self.until = time.monotonic(), 0.0
        return self.is_sure()

    def is_sure(self) -> bool:
        """Whether it is sure now."""
        now = time.monotonic()
        sure = self._partition is not None and self._partition.held
        if sure:
            self.until = now
        return sure

    async def release(self) -> None:
        """Release what it has."""
        partition, self._partition = self._partition, None
        if partition is not None:
            await partition.release()


class Rival:
    """Takes the partitions that it is told to, in a thread with an event loop of its own."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.wanted: frozenset[int] = frozenset()
        """The partitions that it tries to take."""
        self._ready = threading.Event()
        self._stopped = threading.Event()
        self._ended = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(self._run())))

    async def ready(self) -> None:
        """Wait until it is connected."""
        while not (self._ready.is_set() or self._ended.done()):
            await asyncio.sleep(_LOOK)

    async def stop(self) -> list[Owner]:
        """End it, and return what it was sure of and when."""
        self._stopped.set()
        return await self._ended

    async def _run(self) -> list[Owner]:
        async with self._transport.shared() as queue, consuming(queue.broker) as end:
            owners: dict[int, Owner] = {}
            self._ready.set()
            while not self._stopped.is_set():
                for number in self.wanted:
                    owner = owners.get(number) or Owner(end, number)
                    if owner.is_sure() or await owner.acquire():
                        owners[number] = owner
                await asyncio.sleep(_LOOK)
            for owner in owners.values():
                await owner.release()
        return list(owners.values())


class LeaseContract(Contract):
    """How long an owner is sure counts from before it asked."""

    async def test_an_answer_that_comes_late(self, transport: Transport) -> None:
        """Given owners whose broker is slow to answer, when another takes over, then no two are sure at once.

        Owners acquire and renew at different moments, so that some have asked and not read the answer when
        the event loop stands still. They read it late, then nothing is renewed any more, and a rival in
        another thread takes over as soon as the broker lets it.
        """
        transport = transport.having(partitions=_RENEWING + _ACQUIRING)
        rival = Rival(transport)
        try:
            await rival.ready()
            owners = await _become_owners(transport, rival)
        finally:
            taken = await rival.stop()
        for owner, other in product(owners, taken):
            how = "renewed" if owner.number < _RENEWING else "acquired"
            first_end = min(owner.until, other.until)
            assert owner.number != other.number or max(owner.since, other.since) > first_end, (
                f"two owners at once for {first_end - other.since:.2f} s: the lease that "
                f"one of them had {how} ran out before it knew; does it count from when it asked?"
            )


async def _become_owners(transport: Transport, rival: Rival) -> list[Owner]:
    """Acquire all partitions, with late answers, and lose them; return who was sure, and when."""
    lease = transport.dies_within
    async with transport.shared() as queue, AsyncExitStack() as stack:
        numbers = range(_RENEWING + _ACQUIRING)
        ends = [await stack.enter_async_context(consuming(queue.broker)) for _ in numbers]
        owners = list(map(Owner, ends, numbers))
        renewing, acquiring = owners[:_RENEWING], owners[_RENEWING:]
        for owner in acquiring:  # so that all that is missing is the lease
            await owner.acquire()
            await owner.release()
        for owner in renewing:
            await owner.acquire()
            await asyncio.sleep(lease / 4 / _RENEWING)
        tasks: list[asyncio.Task[bool]] = []
        with slow_turns(lease * _TURN):
            for _ in range(_ACQUIRING):
                await asyncio.sleep(0)
            for owner in acquiring:
                tasks.append(asyncio.create_task(owner.acquire()))
                await asyncio.sleep(0)
            stand_still(lease * _LATE)
        await asyncio.sleep(lease * _READ)

        def some_are_sure() -> bool:
            rival.wanted = frozenset(owner.number for owner in owners if owner.is_sure())
            return bool(rival.wanted)

        stand_still(lease * _LONGEST, some_are_sure)
        async with asyncio.timeout(transport.patience):
            await asyncio.gather(*tasks)
            for owner in owners:
                owner.is_sure()
                await owner.release()
    return owners
