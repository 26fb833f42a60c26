"""Where operations leave for the queue, in the order in which they were made."""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from prefactor_core.exceptions import ClientClosedError
from prefactor_core.operations import Operation
from prefactor_core.queue.base import DirectQueue, Queue


class Wait(ABC):
    """What the caller of a recording is to wait for: ``await`` it in any event loop, or ``block`` for it.

    Whether or not the caller does, its operations are recorded.
    """

    @abstractmethod
    def __await__(self) -> Generator[Any, Any, None]: ...

    @abstractmethod
    def block(self) -> None:
        """Block this thread instead."""


class Handover(ABC):
    """Takes operations in any thread. What one call gives is not interrupted by another of its instance."""

    @abstractmethod
    def give(self, operations: tuple[Operation, ...] | list[Operation]) -> Wait | None:
        """Hand operations over, and return what their caller has to wait for, if it has.

        Raises:
            QueueClosedError: The queue is closed.
        """

    @property
    @abstractmethod
    def put_count(self) -> int:
        """How many operations the queue was given, dropped ones and those of others included."""

    @abstractmethod
    async def drain(self) -> None:
        """Wait, in the queue's event loop, until the queue has everything that was given so far."""


def handover_to(queue: Queue[Operation]) -> Handover:
    """Return the handover to a queue, whose event loop is the running one."""
    if isinstance(queue, DirectQueue) and not _overrides_put(queue):
        return _Direct(queue)
    return _InTurn(queue)


def _overrides_put(queue: DirectQueue[Operation]) -> bool:
    """Whether a queue has a ``put`` of its own and inherits ``offer``: then it wants to see what is put."""
    places = (vars(queue), *map(vars, type(queue).__mro__))
    return "offer" not in next(place for place in places if "put" in place or "offer" in place)


class _Direct(Handover):
    """The way into a queue that takes operations from any thread."""

    def __init__(self, queue: DirectQueue[Operation]) -> None:
        self._queue = queue
        self._offer = queue.offer
        self._room = _Room(queue)
        # A queue of the user's may have been used before.
        self._before = queue.put_count - queue.size() - sum(queue.dropped.values())

    def give(self, operations: tuple[Operation, ...] | list[Operation]) -> Wait | None:
        for operation in operations:
            self._offer(operation)
        return self._room if self._queue.blocks and self._queue.overfull else None

    @property
    def put_count(self) -> int:
        return self._queue.put_count - self._before

    async def drain(self) -> None:
        pass


class _Room(Wait):
    """Room in a queue."""

    def __init__(self, queue: DirectQueue[Operation]) -> None:
        self._queue = queue

    def __await__(self) -> Generator[Any, Any, None]:
        return self._queue.room().__await__()

    def block(self) -> None:
        self._queue.block_for_room()


class _InTurn(Handover):
    """The way into any other queue: one task in its event loop puts one call's operations after another's."""

    def __init__(self, queue: Queue[Operation]) -> None:
        self._queue = queue
        self._loop = asyncio.get_running_loop()
        self._line: deque[tuple[tuple[Operation, ...], Future[None]]] = deque()
        self._putting: asyncio.Task[None] | None = None
        self._asleep = True
        self._put_count = queue.size() + sum(queue.dropped.values())

    def give(self, operations: tuple[Operation, ...] | list[Operation]) -> Wait | None:
        put: Future[None] = Future()
        self._line.append((tuple(operations), put))
        if self._asleep:
            self._asleep = False
            try:
                # In the loop's own thread too: a signal handler comes while the loop sleeps.
                self._loop.call_soon_threadsafe(self._begin)
            except RuntimeError:  # the loop is closed
                self._refuse_all()
        return _Put(put)

    @property
    def put_count(self) -> int:
        return self._put_count

    async def drain(self) -> None:
        while self._line:
            if self._putting is None or self._putting.done():
                await asyncio.sleep(0)  # it begins
            else:
                await asyncio.wait([self._putting])

    def _begin(self) -> None:
        if self._putting is None or self._putting.done():
            self._putting = self._loop.create_task(self._put_all(), name="prefactor-put")

    async def _put_all(self) -> None:
        try:
            await self._put_in_turn()
        except BaseException:  # the event loop ends
            self._refuse_all()
            raise

    async def _put_in_turn(self) -> None:
        while True:
            while self._line:
                operations, put = self._line[0]
                try:
                    for operation in operations:
                        await self._queue.put(operation)
                        self._put_count += 1
                except (Exception, asyncio.CancelledError) as error:
                    task = asyncio.current_task()
                    if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                        raise  # this task is meant, and not something that the queue waited for
                    put.set_exception(error)
                else:
                    put.set_result(None)
                self._line.popleft()
            self._asleep = True
            if not self._line:  # else it came before that was seen
                return
            self._asleep = False

    def _refuse_all(self) -> None:
        self._asleep = True
        while self._line:
            _, put = self._line.popleft()
            put.set_exception(
                ClientClosedError("the client's event loop is closed: initialize() it again to go on")
            )


class _Put(Wait):
    """The end of a call's puts."""

    def __init__(self, put: Future[None]) -> None:
        self._put = put

    def __await__(self) -> Generator[Any, Any, None]:
        return self._end().__await__()

    async def _end(self) -> None:
        # Not the future itself: a caller that is cancelled leaves no hole in the sequence.
        loop = asyncio.get_running_loop()
        over = asyncio.Event()

        def tell(_: Future[None]) -> None:
            with suppress(RuntimeError):  # the caller gave up, and its loop is closed by now
                loop.call_soon_threadsafe(over.set)

        self._put.add_done_callback(tell)
        await over.wait()
        self._put.result()

    def block(self) -> None:
        self._put.result()
