"""The executor: takes deliveries from a queue and has them carried out, in order, many lanes at once."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from prefactor_core.accounts import ExecutorAccount
from prefactor_core.exceptions import PrefactorTelemetryFailureError, QueueClosedError
from prefactor_core.execution.dependents import Dependents
from prefactor_core.execution.disposal import Disposal
from prefactor_core.execution.handler import BatchHandler, Circuit, EachItem, NoCircuit
from prefactor_core.execution.lanes import Lanes, Resolution
from prefactor_core.execution.outcome import LATER, Outcome, Retry
from prefactor_core.execution.retry import Retrying, RetryPolicy
from prefactor_core.operations import Operation
from prefactor_core.outage import Outage
from prefactor_core.queue.base import Attempt, Delivery, Observe, Queue
from prefactor_core.waiters import Waiters, in_time

logger = logging.getLogger(__name__)

PREFETCH_ITEMS: Final = 10_000
"""Deliveries of a queue elsewhere that one executor prefetches at most."""
PREFETCH_BYTES: Final = 64 * 1024 * 1024
"""Bytes prefetched by one executor, but for the last delivery that crosses the line."""
_UNBOUNDED: Final = 1 << 62
_LOOK_AGAIN: Final = 1.0
"""Seconds between two looks of ``idle`` at whether anything is left."""
_RECEIVED_AT_ONCE: Final = 256
"""Deliveries sorted into lanes before other tasks run."""


def instance_lane(item: object) -> str | None:
    """Return the lane of an operation: its agent instance. Everything else has a lane of its own."""
    return item.instance_id if isinstance(item, Operation) else None


class TaskExecutor:
    """Carries out what a queue delivers.

    Deliveries with the same lane key are carried out one after another, in the order of the queue; lanes
    do not wait for each other. A failed item is retried ``max_retries`` times with exponential backoff and
    full jitter, then dead-lettered.

    All times are the event loop's.

    Args:
        queue: Where the deliveries come from. A queue with only the five methods of the published
            interface is enough.
        handler: A coroutine function that carries out one item, or a ``BatchHandler``.
        num_workers: Calls of the handler in flight at most.
        max_retries: Attempts after the first.
        is_retryable: Whether an exception of the function is worth another attempt; by default all are.
        retry_delay_base: Bound of the first backoff, in seconds.
        retry: The whole retry policy, in place of ``max_retries`` and ``retry_delay_base``.
        key: Names an item's lane; ``None`` from it is a lane of its own.
        dependents: What follows a dead letter, if items depend on each other.
        linger: Seconds to let a small batch grow before it is handed over.
        observe: Told the items that were settled or superseded and the dead letters, once the queue knows.
        on_failure: Awaited once, when the handler says that nothing will ever be delivered. By then the
            executor has stopped by itself and released everything.
        outage: Where failures of the queue are logged; it is not closed here. By default one of its own.
    """

    def __init__(
        self,
        queue: Queue[Any],
        handler: Callable[[Any], Awaitable[None]] | BatchHandler[Any],
        num_workers: int = 3,
        max_retries: int = 3,
        *,
        is_retryable: Callable[[Exception], bool] | None = None,
        retry_delay_base: float = 1.0,
        retry: RetryPolicy | None = None,
        key: Callable[[Any], str | None] = instance_lane,
        dependents: Dependents | None = None,
        linger: float = 0.0,
        observe: Observe | None = None,
        on_failure: Callable[[PrefactorTelemetryFailureError], Awaitable[None]] | None = None,
        outage: Outage | None = None,
    ) -> None:
        if num_workers < 1:
            raise ValueError(f"num_workers: must be at least 1, got {num_workers}")
        self._queue = queue
        batches: BatchHandler[Any] = EachItem(handler, is_retryable) if callable(handler) else handler
        self._handler = batches
        self._circuit: Circuit = getattr(batches, "circuit", None) or NoCircuit()
        self._num_workers = num_workers
        self._retry = retry or RetryPolicy(max_retries=max_retries, base=retry_delay_base)
        self._linger = linger
        self._on_failure = on_failure
        self._lanes: Lanes[Any] = Lanes(self._retry, key, dependents, num_workers)
        self.account = ExecutorAccount()
        """Where the deliveries went, so far."""
        self._outage = outage or Outage(logger, "the queue", "fails, and is tried again")
        self._closes_outage = outage is None
        self._handling = Outage(logger, "the handler", "fails; its operations are retried")
        self._disposal = Disposal(queue, self._retry, self.account, self._outage, observe)
        # Receiving what is in this process's memory anyway costs none, and a long line in trouble leaves
        # room for all others.
        self._prefetch_items = _UNBOUNDED if queue.in_memory else PREFETCH_ITEMS
        self._prefetch_bytes = _UNBOUNDED if queue.in_memory else PREFETCH_BYTES
        self._tasks: list[asyncio.Task[None]] = []
        self._idle = Waiters()
        self._room = asyncio.Event()
        self._flushes: list[_Flush] = []
        self._blocked_getters = 0
        self._receiving = False
        self._stopping = False
        self._process = 0
        self._halt = asyncio.Event()

    @property
    def prefetched(self) -> int:
        """Deliveries that are neither settled, dead-lettered nor released."""
        return self._lanes.prefetched + self._disposal.prefetched

    @property
    def holding(self) -> str | None:
        """Why rejected operations are held, if any are: nothing was taken since many were rejected."""
        return self._lanes.holding

    def start(self) -> None:
        """Start receiving and carrying out, in tasks that the executor owns.

        Raises:
            RuntimeError: It is running already, or there is no running event loop.
        """
        if self._tasks:
            raise RuntimeError("start() on an executor that is running: stop it first")
        loop = asyncio.get_running_loop()
        self._stopping = False
        self._halt.clear()
        self._receiving = True
        self._tasks = [loop.create_task(self._receive(), name="prefactor-receive")]
        self._process = os.getpid()
        self._tasks[0].add_done_callback(self._report_undelivered)
        self._tasks += [
            loop.create_task(self._work(), name=f"prefactor-worker-{number}")
            for number in range(self._num_workers)
        ]

    async def stop(self, timeout: float | None = None, *, drain: bool = True) -> bool:
        """Close the queue, carry out what is left in it, and end.

        Args:
            timeout: Seconds after which the rest is released instead; ``None`` waits for all.
            drain: Whether to carry out all that was received, or only what is with the handler now.

        Returns:
            Whether everything was carried out (or dead-lettered).
        """
        self._stopping = True
        if not drain:
            self._halt.set()
        tasks = self._tasks
        released = self.account.released
        try:
            async with asyncio.timeout(timeout):
                await self._queue.close(self._blocked_getters)
                self._idle.wake_all()
                self._room.set()
                if tasks:
                    await asyncio.wait(tasks)
        except TimeoutError:
            pass  # what is left goes back to the queue
        await self._end()
        return self.account.released == released

    async def abandon(self) -> None:
        """End at once and release everything that is prefetched."""
        self._stopping = True
        await self._end()

    async def release(self) -> None:
        """Release everything that is prefetched: the event loop is closed, and no task will run."""
        self._tasks = []
        await self._release_all()

    async def idle(self) -> None:
        """Wait until everything that waits in the queue or is prefetched is disposed of."""
        waiting = self._queue.size()
        if waiting + self.prefetched == 0:
            return
        # What waits in the queue is received next, so its numbers are known.
        flush = _Flush(self.account.received + waiting, waiting + self.prefetched)
        self._flushes.append(flush)
        try:
            while not flush.done.is_set() and self._queue.size() + self.prefetched > 0:
                # What waits in the queue can become another process's, and is never received then.
                await in_time(flush.done.wait(), _LOOK_AGAIN)
        finally:
            self._flushes.remove(flush)

    # -- receiving

    async def _receive(self) -> None:
        retrying = Retrying(self, self._retry, self._outage)
        try:
            while True:
                await self._wait_for_room()
                try:
                    self._blocked_getters = 1
                    deliveries = await self._queue.receive(
                        max(1, min(_RECEIVED_AT_ONCE, self._prefetch_items - self.prefetched)),
                        max(1, self._prefetch_bytes - self._lanes.prefetched_bytes),
                    )
                except QueueClosedError:
                    return
                except Exception as error:  # noqa: BLE001 -- told, and tried again
                    # The queue is somebody else's code; what it still holds must not be stranded.
                    await retrying.failed(error)
                    continue
                finally:
                    self._blocked_getters = 0
                retrying.worked()
                try:
                    for delivery in deliveries:
                        if delivery.attempt is not None:
                            await delivery.attempt.withdraw()  # until it is handled
                except asyncio.CancelledError:
                    self._count(deliveries)
                    self._disposal.interrupted += deliveries
                    raise
                self._count(deliveries)
                for delivery in deliveries:
                    self._lanes.add(delivery)
                self._idle.wake_one()
                await asyncio.sleep(0)  # a queue that never suspends must not starve the agent
        finally:
            self._receiving = False
            self._idle.wake_all()

    def _report_undelivered(self, receiver: asyncio.Task[None]) -> None:
        """Say what it costs that the event loop ended before this executor was stopped."""
        left = self.prefetched + len(self._disposal.interrupted) + self._queue.size()
        # A fork inherits the event loop, and what is its parent's to deliver.
        if receiver.cancelled() and not self._stopping and left > 0 and os.getpid() == self._process:
            logger.warning("ended without stop(): %d operations are undelivered", left)

    def _count(self, deliveries: Sequence[Delivery[Any]]) -> None:
        for delivery in deliveries:
            self.account.received += 1
            delivery.number = self.account.received

    async def _wait_for_room(self) -> None:
        while not self._stopping and self._is_full:
            self._room.clear()
            await self._room.wait()

    @property
    def _is_full(self) -> bool:
        return self.prefetched >= self._prefetch_items or self._lanes.prefetched_bytes >= self._prefetch_bytes

    # -- carrying out

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while not self._halt.is_set() and (self._receiving or self._lanes.prefetched):
                await self._let_grow()
                if self._stopping and self._lanes.all_held:
                    break  # nothing is left that could be taken
                if not self._circuit.ready and self._lanes.is_ready(loop.time()):
                    await self._wait_for_circuit()
                    continue
                batch = self._lanes.take(self._handler.limits, loop.time())
                disposed = await self._dispose_of_unsent()
                if not batch:
                    if not disposed:  # else more may have come meanwhile
                        await self._wait_for_work()
                    continue
                self._idle.wake_one()  # there may be more than fits into this batch
                outcomes = await self._carry_out(batch)
                resolution = self._lanes.resolve(batch, outcomes, loop.time())
                self._idle.wake_one()  # a queue that is slow to settle holds up no lane
                await self._withdraw_attempts(batch, resolution)
                await self._dispose(resolution)
        except PrefactorTelemetryFailureError as failure:
            await self._fail(failure)
            return
        self._idle.wake_all()

    async def _wait_for_circuit(self) -> None:
        """Wait until calls make sense again, or until nothing more is to be carried out."""
        waits = [asyncio.ensure_future(self._circuit.wait()), asyncio.ensure_future(self._halt.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
            results = await asyncio.gather(*waits, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _let_grow(self) -> None:
        # Requests cost far more than the operations in them: a few milliseconds of patience save most of it.
        urgent = self._linger <= 0 or self._stopping or self._queue.closed
        if not urgent and 0 < self._lanes.prefetched < self._handler.limits.max_items // 4:
            await asyncio.sleep(self._linger)

    async def _carry_out(self, batch: list[Delivery[Any]]) -> list[Outcome]:
        """Have the handler carry out what may be handled now; the rest has to wait a moment."""
        postponed: set[object] = set()  # lanes: what is behind has to wait as well
        now: list[Delivery[Any]] = []
        for delivery in batch:
            if delivery.lane not in postponed and await self._may_begin(delivery.attempt):
                now.append(delivery)
            else:
                postponed.add(delivery.lane)
        if not postponed:
            return await self._handle(batch)
        outcomes = iter(await self._handle(now)) if now else iter(())
        handled = set(now)
        return [next(outcomes) if delivery in handled else LATER for delivery in batch]

    async def _may_begin(self, attempt: Attempt | None) -> bool:
        """Record an attempt, if this is one: not before what the handler speaks to is known to be well."""
        if attempt is None:
            return True
        return await self._circuit.prove() and await attempt.begin()

    async def _withdraw_attempts(self, batch: list[Delivery[Any]], resolution: Resolution[Any]) -> None:
        """Withdraw the attempts at what is not at its end: until it is handled again it only waits."""
        if all(delivery.attempt is None for delivery in batch):
            return
        ended = set(resolution.ended)
        for delivery in batch:
            if delivery.attempt is not None and delivery not in ended:
                await delivery.attempt.withdraw()

    async def _handle(self, batch: list[Delivery[Any]]) -> list[Outcome]:
        try:
            outcomes = list(await self._handler.handle(batch))
        except PrefactorTelemetryFailureError:
            raise
        except Exception as error:  # noqa: BLE001 -- told
            self._handling.failed(self, error)
            outcomes = [Retry(f"{type(error).__name__}: {error}")] * len(batch)
        else:
            self._handling.worked(self)
        if len(outcomes) != len(batch):
            logger.error("the handler answered %d outcomes for %d items", len(outcomes), len(batch))
            outcomes = [Retry("the handler did not answer for every item")] * len(batch)
        return outcomes

    async def _dispose_of_unsent(self) -> bool:
        """Dispose of what ``take`` found that must not be sent; whether there was any."""
        unsent, self._lanes.unsent = self._lanes.unsent, Resolution()
        if not unsent.ended and not unsent.revoked:
            return False
        await self._dispose(unsent)
        return True

    async def _dispose(self, resolution: Resolution[Any]) -> None:
        for delivery in await self._disposal.tell(resolution):
            self._lanes.revive(delivery)
        self._room.set()
        for flush in self._flushes:
            flush.disposed(resolution)

    # -- waiting and ending

    async def _wait_for_work(self) -> None:
        """Wait until something was received, a lane has backed off, or the end has come."""
        if self._receiving or self._lanes.prefetched:
            await self._idle.wait(self._lanes.next_due())

    async def _fail(self, failure: PrefactorTelemetryFailureError) -> None:
        """End at once: the handler says that nothing will ever be delivered."""
        if not self._tasks:
            return  # another worker was told so first
        await self.abandon()
        if self._on_failure is not None:
            await self._on_failure(failure)

    async def _end(self) -> None:
        """Cancel what still runs and release what is left."""
        tasks, self._tasks = self._tasks, []
        others = [task for task in tasks if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        for result in await asyncio.gather(*others, return_exceptions=True):
            if isinstance(result, Exception):
                logger.error("a task of the executor failed", exc_info=result)
        for flush in self._flushes:
            flush.done.set()
        await self._release_all()

    async def _release_all(self) -> None:
        interrupted, self._disposal.interrupted = self._disposal.interrupted, []
        left = sorted(interrupted + self._lanes.empty_out(), key=lambda delivery: delivery.number)
        self.account.released += len(left)
        if left:
            try:
                await self._queue.release(left)
            except Exception:
                # The queue is somebody else's code, and the end waits for nothing.
                logger.exception("the queue did not take back %d operations", len(left))
        if self._closes_outage:
            self._outage.close()
        self._handling.close()
        self._disposal.close()


class _Flush:
    """Waits for everything up to a number."""

    def __init__(self, up_to: int, remaining: int) -> None:
        self._up_to = up_to
        self._remaining = remaining
        self.done = asyncio.Event()

    def disposed(self, resolution: Resolution[Any]) -> None:
        """Count what was disposed of."""
        gone = [*resolution.ended, *resolution.revoked]
        self._remaining -= sum(delivery.number <= self._up_to for delivery in gone)
        if self._remaining <= 0:
            self.done.set()
