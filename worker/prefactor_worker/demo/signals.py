"""Signals that end the demo cleanly."""

import asyncio
import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def cancelled_by(*signals: signal.Signals) -> Iterator[None]:
    """Cancel the current task when one of these signals comes, for the length of a ``with``."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("the demo runs in a task")
    for number in signals:
        loop.add_signal_handler(number, task.cancel)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


async def signalled(*signals: signal.Signals) -> None:
    """Wait for one of these signals.

    The handlers stay: a second signal must not cut short what the first one has begun to clear away.
    """
    loop = asyncio.get_running_loop()
    came = asyncio.Event()
    for number in signals:
        loop.add_signal_handler(number, came.set)
    await came.wait()
