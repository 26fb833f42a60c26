"""Publishing: operations leave the buffer for the broker in the background, in order, until it has them.

Each partition has at most one batch in flight. After a failure it is sent again from its first operation
that was not confirmed, so that what the broker gets twice are whole suffixes, and the order of first
occurrences is the order of puts.
"""

import asyncio
import contextvars
import logging
import os
import secrets
from collections.abc import Callable, Coroutine
from itertools import islice
from typing import Final

from prefactor_core.broker.buffer import Buffer, Line
from prefactor_core.broker.driver import PublishingEnd
from prefactor_core.broker.envelope import encode
from prefactor_core.exceptions import BrokerError, QueueClosedError
from prefactor_core.execution.retry import Retrying, RetryPolicy
from prefactor_core.operations import Operation
from prefactor_core.outage import Outage
from prefactor_core.queue.base import Published
from prefactor_core.queue.intake import BufferBounds

logger = logging.getLogger("prefactor_core.broker")

_BATCH_ITEMS: Final = 500
_BATCH_BYTES: Final = 1024 * 1024
_ENCODED_AT_ONCE: Final = 100
"""Operations encoded before the event loop, which the agent works on, runs again."""
_BATCHES_IN_FLIGHT: Final = 4
"""At a time. While they are, the others grow, so batches are large under load."""
_DOUBTFUL_IN_FLIGHT: Final = 2
"""The same of lines whose last attempt failed."""
_LINGER: Final = 0.005
"""Seconds that a batch may grow when nothing is in flight: it is also what an agent that dies may lose."""
_USUAL_RETRY: Final = RetryPolicy(base=0.2, cap=5.0)


class Publisher:
    """Takes operations and publishes them in tasks that it owns; ``name`` is what logs call the broker."""

    def __init__(
        self, end: PublishingEnd, name: str, bounds: BufferBounds, retry: RetryPolicy = _USUAL_RETRY
    ) -> None:
        self._end = end
        self._name = name
        self._blocks = bounds.policy == "block"
        self._retry = retry
        self._buffer = Buffer(bounds, secrets.token_hex(8))
        self._publishing: dict[Line, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(_BATCHES_IN_FLIGHT)
        # A server that hangs, one of many perhaps, must not take the slots of lines that get through.
        self._doubtful = asyncio.Semaphore(_DOUBTFUL_IN_FLIGHT)
        self._start: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sorting: asyncio.Task[None] | None = None
        self._outage = Outage(
            logger,
            name,
            "does not accept operations; they stay in the buffer",
            lambda: f"publishing resumes with {self.waiting} operations in the buffer",
        )
        self._closed = False
        self._disconnecting = False
        self._reported = False
        self._process = os.getpid()
        self.sdk_header: Callable[[], str] = str
        """Returns the SDK header of the moment, for the envelopes."""

    def open(self) -> None:
        """Begin to publish in this event loop what is offered. Opening again does nothing."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._buffer.intake.listen(self._sort_soon)

    @property
    def published(self) -> Published:
        """Where everything is now. Can be asked for in any thread."""
        return self._buffer.published

    @property
    def waiting(self) -> int:
        """How many operations the broker has not confirmed. Can be asked for in any thread."""
        return self._buffer.intake.held

    async def put(self, operation: Operation) -> None:
        """As ``BrokerQueue.put``; also refused if the queue is closed while the caller waits for room."""
        await self.room_for(operation)
        self.offer(operation)

    async def room_for(self, operation: Operation) -> None:
        """Wait until an operation fits, or the queue is closed, if callers wait for that at all."""
        self.open()
        if self._blocks:
            intake = self._buffer.intake
            await intake.until(lambda: self._closed or intake.fits(operation.size))

    def offer(self, operation: Operation) -> None:
        """As ``BrokerQueue.offer``."""
        if self._closed:
            raise QueueClosedError("put() on a closed queue: nothing more is taken")
        self._buffer.intake.add(operation, operation.size)

    @property
    def overfull(self) -> bool:
        """As ``BrokerQueue.overfull``."""
        return self._buffer.intake.overfull

    async def room(self) -> None:
        """As ``BrokerQueue.room``."""
        await self._buffer.intake.until(self._is_within_bounds)

    def block_for_room(self) -> None:
        """As ``BrokerQueue.block_for_room``."""
        self._buffer.intake.block_until(self._is_within_bounds)

    async def flush(self, timeout: float) -> bool:
        """Wait until the broker has confirmed everything put so far; return whether it did in time."""
        self._sort()
        number = self._buffer.last_number
        try:
            async with asyncio.timeout(timeout):
                while self._buffer.holds_any_up_to(number):
                    await self._buffer.changes.wait()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Take nothing more. What was taken is still published, until ``disconnect``."""
        self._closed = True
        self._buffer.intake.wake_blocked()

    async def disconnect(self) -> None:
        """Stop publishing and disconnect. What is not confirmed stays counted as such."""
        self.close()
        self._disconnecting = True
        others = (self._start, self._sorting)
        tasks = [*self._publishing.values(), *(task for task in others if task is not None)]
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                logger.error("publishing to %s failed", self._name, exc_info=result)
        await self._end.disconnect()
        self._outage.close()

    # -- inside

    def _is_within_bounds(self) -> bool:
        return self._closed or not self._buffer.intake.overfull

    def _sort_soon(self) -> None:
        """Have what came in sorted once there is enough for a batch, maybe."""
        if not self._disconnecting:
            self._sorting = self._spawn(self._sort_later())

    async def _sort_later(self) -> None:
        await asyncio.sleep(_LINGER)
        self._sort()

    def _sort(self) -> None:
        """Sort what came in and have it published; then listen for more."""
        lines = self._buffer.sort(self.sdk_header)
        if self._disconnecting:
            return  # a sort that lingered longer, or a late flush, publishes nothing any more
        if self._start is None and lines:
            self._start = self._spawn(self._learn_partitions())
        for line in lines:
            if line.partition is not None:
                self._start_publishing(line)
        if self._loop is not None:
            self._buffer.intake.listen(self._sort_soon)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        # A context of its own: that of the caller would keep what it holds alive for as long as this runs.
        loop = self._loop or asyncio.get_running_loop()
        task = loop.create_task(work, context=contextvars.Context())
        task.add_done_callback(self._report_unconfirmed)
        return task

    def _report_unconfirmed(self, task: asyncio.Task[None]) -> None:
        """Say what is lost if the event loop ends before this publisher was disconnected."""
        ended_alone = task.cancelled() and not self._disconnecting and not self._reported
        # A fork inherits the event loop, and what is its parent's to publish.
        if ended_alone and self.waiting > 0 and os.getpid() == self._process:
            self._reported = True
            logger.warning(
                "ended without disconnect(): %s has not confirmed %d operations", self._name, self.waiting
            )

    async def _learn_partitions(self) -> None:
        # Whatever it raises is retried: the driver is somebody else's code.
        partitions = await Retrying(self, self._retry, self._outage).insist(self._end.partitions)
        for line in self._buffer.partition(partitions):
            self._start_publishing(line)

    def _start_publishing(self, line: Line) -> None:
        """Have the line published, unless it is already."""
        if line not in self._publishing:
            self._publishing[line] = self._spawn(self._publish_line(line))

    async def _publish_line(self, line: Line) -> None:
        """Publish a line until nothing is left in it."""
        retrying = Retrying(line, self._retry, self._outage)
        while line.entries:
            try:
                async with self._doubtful if retrying.failures else self._slots:
                    await self._publish(line)
            except Exception as error:  # noqa: BLE001 -- told, and tried again
                # Also what is no BrokerError: what waits must not be stranded by a mistake of the driver's.
                if isinstance(error, BrokerError) and error.confirmed > 0:
                    retrying.failures = 0  # it gets on
                await retrying.failed(error)
            else:
                retrying.worked()
        self._outage.worked(line)  # also if the last attempt failed with all of it confirmed
        del self._publishing[line]

    async def _publish(self, line: Line) -> None:
        batch: list[bytes] = []
        size = 0
        for _, envelope in list(islice(line.entries, _BATCH_ITEMS)):
            data = encode(envelope)
            if batch and size + len(data) > _BATCH_BYTES:
                break
            batch.append(data)
            size += len(data)
            if len(batch) % _ENCODED_AT_ONCE == 0:
                await asyncio.sleep(0)
        line.sent = max(line.sent, len(batch))
        try:
            await self._end.publish(line.partition or 0, batch)
        except BrokerError as error:
            self._buffer.confirm(line, min(error.confirmed, len(batch)))
            raise
        self._buffer.confirm(line, len(batch))
