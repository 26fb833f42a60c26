"""Answers that are read late, without the help of a driver: the event loop stands still meanwhile.

What a driver has asked for is answered by its broker while nothing runs here. So the driver reads the answer
late, as it would behind a slow network or on a busy machine.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Final, Self

from prefactor_core.broker.driver import ConsumingEnd, Partition
from prefactor_core.exceptions import BrokerError
from prefactor_core.testing.drivers import consuming
from prefactor_core.testing.transport import Transport

_LOOK: Final = 0.005


class Drag:
    """Makes each turn of the running event loop last for a while: ``with Drag(0.1): ...``.

    Args:
        seconds: How long.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._next: asyncio.Handle | None = None

    def __enter__(self) -> Self:
        self._turn()
        return self

    def __exit__(self, *_: object) -> None:
        if self._next is not None:
            self._next.cancel()

    def _turn(self) -> None:
        time.sleep(self._seconds)
        self._next = self._loop.call_soon(self._turn)


def stand_still(seconds: float, busy: Callable[[], bool] = lambda: True) -> None:
    """Let nothing run in this thread, for so long or until ``busy`` is false; that is asked all the time."""
    deadline = time.monotonic() + seconds
    while busy() and time.monotonic() < deadline:
        time.sleep(_LOOK)


class Owner:
    """Somebody who acquires a partition, and from when to when it was sure to own it.

    Args:
        end: What it acquires through.
        number: The partition.
    """

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

    def overlaps(self, other: "Owner") -> bool:
        """Whether both were sure of the same partition at one time."""
        return self.number == other.number and max(self.since, other.since) <= min(self.until, other.until)


class Rival:
    """Takes the partitions that it is told to, in a thread with an event loop of its own.

    Args:
        transport: What it connects to.
        url: Where.
    """

    def __init__(self, transport: Transport, url: str) -> None:
        self._transport = transport
        self._url = url
        self._wanted: frozenset[int] = frozenset()
        self._ready = threading.Event()
        self._stopped = threading.Event()
        self._thread = ThreadPoolExecutor(1)
        self._ended: Future[list[Owner]] = self._thread.submit(lambda: asyncio.run(self._run()))

    async def ready(self) -> None:
        """Wait until it is connected."""
        while not (self._ready.is_set() or self._ended.done()):
            await asyncio.sleep(_LOOK)

    def want(self, partitions: Iterable[int]) -> None:
        """Have it try to take these partitions from now on, and no others."""
        self._wanted = frozenset(partitions)

    async def stop(self) -> list[Owner]:
        """End it, and return what it was sure of and when."""
        self._stopped.set()
        try:
            return await asyncio.wrap_future(self._ended)
        finally:
            self._thread.shutdown(wait=False)

    async def _run(self) -> list[Owner]:
        async with self._transport.shared(self._url) as queue, consuming(queue.broker) as end:
            owners: dict[int, Owner] = {}
            self._ready.set()
            while not self._stopped.is_set():
                for number in self._wanted:
                    owner = owners.get(number) or Owner(end, number)
                    if owner.is_sure() or await owner.acquire():
                        owners[number] = owner
                await asyncio.sleep(_LOOK)
            for owner in owners.values():
                await owner.release()
        return list(owners.values())
