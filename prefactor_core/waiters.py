"""Waiters: callers that wait for one thing, in the order in which they came."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Waiters:
    """Callers to be woken one by one, or all together. A caller that was woken looks again by itself."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[bool]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self, until: float | None = None) -> None:
        """Wait to be woken; or until ``until``, in seconds of the event loop.

        A caller that is cancelled as it is woken alone wakes the next one instead.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiting.append(waiter)
        timer = None if until is None else loop.call_at(until, _wake, waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.result():
                self.wake_one()
            raise
        finally:
            if timer is not None:
                timer.cancel()
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def wake_one(self) -> None:
        """Wake the one that has waited longest."""
        while self._waiting:
            if _wake(self._waiting.popleft(), alone=True):
                return

    def wake_all(self) -> None:
        """Wake everybody who waits now."""
        while self._waiting:
            _wake(self._waiting.popleft())


async def in_time(awaitable: Awaitable[object], timeout: float) -> bool:
    """Wait for ``awaitable`` for ``timeout`` seconds, then cancel it. Return whether it ended by itself."""
    try:
        async with asyncio.timeout(timeout):
            await awaitable
    except TimeoutError:
        return False
    return True


async def in_loop(loop: asyncio.AbstractEventLoop, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine function in an event loop, which may be another thread's, and return its result."""
    if asyncio.get_running_loop() is loop:
        return await work()
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), loop))


def _wake(waiter: asyncio.Future[bool], *, alone: bool = False) -> bool:
    """Wake a waiter, and return whether there was anybody to wake: its event loop may be closed by now."""
    if waiter.done() or waiter.get_loop().is_closed():
        return False
    waiter.set_result(alone)
    return True
