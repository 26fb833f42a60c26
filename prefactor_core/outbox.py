"""Where the client's operations leave for the queue, in the order of the calls that made them."""

import asyncio
from typing import Protocol

from prefactor_core.operations import Operation
from prefactor_core.queue.base import Queue


class Outbox:
    """Puts operations to a queue without ever changing their order.

    A queue whose ``put`` never suspends needs no help. With any other queue a second call could overtake the
    first while that one is suspended, or a cancelled caller could leave a hole in the sequence; so each
    call's operations are put by a task of their own that waits for the one before.
    """

    def __init__(self, queue: Queue[Operation]) -> None:
        self._queue = queue
        self._last: asyncio.Task[None] | None = None
        self.put_count = 0
        """Operations whose ``put`` returned."""

    async def put(self, *operations: Operation) -> None:
        """Put operations one after the other, with nothing of another call between them."""
        if self._queue.immediate:
            await self._put_all(operations)
            return
        task = asyncio.create_task(self._put_after(self._last, operations))
        self._last = task
        task.add_done_callback(_retrieve)
        await asyncio.shield(task)

    async def drain(self) -> None:
        """Wait until everything that was given before this call has been put."""
        last = self._last
        if last is not None and not last.done():
            await asyncio.wait([last])

    async def _put_all(self, operations: tuple[Operation, ...]) -> None:
        for operation in operations:
            await self._queue.put(operation)
            self.put_count += 1

    async def _put_after(self, before: asyncio.Task[None] | None, operations: tuple[Operation, ...]) -> None:
        if before is not None and not before.done():
            await asyncio.wait([before])
        await self._put_all(operations)


def _retrieve(put: asyncio.Task[None]) -> None:
    """Take a put's error from it: a caller that was cancelled does not, and asyncio would log it."""
    if not put.cancelled():
        put.exception()


class Check(Protocol):
    """Raises if no call can be taken now."""

    def __call__(self, *, puts: bool = True) -> None:
        """Check; a call that ``puts`` something and is refused for good counts as dropped."""
        ...


class Entrance:
    """What calls go through on their way to an outbox: ``check`` raises if none can be taken now.

    It is told with ``puts`` whether there is a call that was to put something.

    Whatever makes operations holds the entrance, and nothing that delivers them does: once it is gone, no
    call can come any more.
    """

    def __init__(self, outbox: Outbox, check: Check) -> None:
        self.put = outbox.put
        """As ``Outbox.put``."""
        self.check = check
        """To be called before anything is changed for a call that will put."""
