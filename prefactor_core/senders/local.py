"""The sender in this process: the pipeline for a queue that nobody else empties."""

import asyncio
import logging
import threading
from collections.abc import Callable
from copy import copy
from typing import Any, Final

from prefactor_core.api.pipeline import Pipeline
from prefactor_core.api.replies import Standing, standing_of, termination_of
from prefactor_core.api.wire import instance_path
from prefactor_core.config import HttpClientConfig, PrefactorCoreConfig
from prefactor_core.exceptions import PrefactorTelemetryFailureError
from prefactor_core.execution.retry import RetryPolicy
from prefactor_core.monitoring.termination_monitor import TerminationMonitor
from prefactor_core.operations import Operation
from prefactor_core.queue.base import Queue
from prefactor_core.senders.base import Progress, Sender
from prefactor_core.texts import plain_url
from prefactor_core.waiters import in_time

logger = logging.getLogger("prefactor_core")

_SHORTEST_GAP: Final = 0.1
"""Seconds between two polls at least: with very many instances a round takes longer instead."""


class LocalSender(Sender):
    """Sends what is queued in this process, until it is stopped or the API refuses the token.

    Once in ``termination_poll_interval`` it asks for the status of each instance that the monitor watches:
    its agent may hear nothing of a termination otherwise.
    """

    def __init__(
        self,
        queue: Queue[Any],
        http: HttpClientConfig,
        config: PrefactorCoreConfig,
        sdk_header: Callable[[], str],
        monitor: TerminationMonitor,
    ) -> None:
        retry = RetryPolicy(
            max_retries=config.queue_config.max_retries,
            base=config.queue_config.retry_delay_base,
            multiplier=http.retry_multiplier,
            cap=http.max_retry_delay,
        )
        self._queue = queue
        self.destination = plain_url(http.api_url)
        """Where operations go, in words for a log."""
        self._pipeline = Pipeline(
            queue,
            http,
            retry,
            config.queue_config.num_workers,
            sdk_header,
            latch=True,
            on_terminated=monitor.terminated,
            on_failure=self._fail,
        )
        self._executor = self._pipeline.executor
        self._on_failed: Callable[[], None] | None = None
        self._monitor = monitor
        self._poll_interval = config.termination_poll_interval
        self._polling: asyncio.Task[None] | None = None
        self._check: asyncio.Task[None] | None = None
        self._failing = False
        self._failure: PrefactorTelemetryFailureError | None = None
        self._discarded = 0  # dropped when the API refused the token
        self._refused_calls = 0
        self._refusing = threading.RLock()  # a signal handler may come amid a call

    def raise_failure(self, *, refused_call: bool = False) -> None:
        """Raise the failure that has ended delivery, if one has; ``refused_call`` counts as dropped then."""
        if self._failure is None:
            return
        with self._refusing:
            self._refused_calls += refused_call
        # A fresh one each time: an exception that is raised again grows its traceback.
        failure = copy(self._failure)
        failure.dropped_operations = self._discarded + self._refused_calls
        raise failure from failure.cause

    def start(self, on_failed: Callable[[], None]) -> None:
        """Start sending, and check the token in the background."""
        self._on_failed = on_failed
        self._executor.start()
        loop = asyncio.get_running_loop()
        self._check = loop.create_task(self._check_token(), name="prefactor-check-token")
        if self._poll_interval > 0:
            self._polling = loop.create_task(self._poll(), name="prefactor-termination-poll")

    def progress(self, put_count: Callable[[], int]) -> Progress:
        """Ask the executor and the queue."""
        account = self._executor.account
        # In this order, since operations only move on: none is counted twice.
        delivered, dead = account.settled, account.dead_lettered
        superseded = dict(account.superseded_by_type)
        sending = self._executor.prefetched
        dropped = dict(self._queue.dropped)
        if self._discarded:
            dropped["discarded"] = self._discarded
        return Progress(
            put=put_count(),
            delivered=delivered,
            dropped=dropped,
            sending=sending,
            dead_lettered=dead,
            retried=account.retried,
            overtaken=account.overtaken,
            superseded=superseded,
        )

    async def flush(self, timeout: float) -> bool:
        """Wait until everything queued so far is settled or dead-lettered; return whether that came true."""
        return await in_time(self._executor.idle(), timeout) and not self._failing

    async def stop(self, timeout: float) -> None:
        """Send what is left, for ``timeout`` seconds at most, and let go of the connections."""
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.wait([self._polling])
        await self._executor.stop(timeout)
        if self._check is not None:
            if not self._failing:
                self._check.cancel()
            await asyncio.wait([self._check])
        await self._pipeline.http.close()

    async def abort(self) -> None:
        """End at once, and let go of the connections."""
        await self._executor.abandon()
        own = [task for task in (self._polling, self._check) if task is not None]
        for task in own:
            task.cancel()
        await asyncio.gather(*own, return_exceptions=True)
        await self._pipeline.http.close()

    async def leave(self) -> None:
        """Put back what is prefetched."""
        await self._executor.release()

    async def _check_token(self) -> None:
        try:
            await self._pipeline.breaker.check()
        except PrefactorTelemetryFailureError as failure:
            await self._fail(failure)

    async def _poll(self) -> None:
        """Ask for statuses until cancelled. What fails is asked again in the next round."""
        while True:
            instances = self._monitor.running()
            gap = max(_SHORTEST_GAP, self._poll_interval / max(1, len(instances)))
            if not instances:
                await asyncio.sleep(gap)
            for instance_id in instances:
                await asyncio.sleep(gap)
                reply = await self._pipeline.http.get(instance_path(instance_id))
                termination = termination_of(reply)
                if termination is not None:
                    self._pipeline.terminations.heard(instance_id, termination.reason)
                elif standing_of(reply) is Standing.FINISHED:
                    self._monitor.finished(instance_id)  # by another process

    async def _fail(self, failure: PrefactorTelemetryFailureError) -> None:
        if self._failing:
            return
        self._failing = True
        await self._executor.abandon()  # what calls put meanwhile is dropped with the rest
        if failure.operation_type is None:
            failure.operation_type = await self._first_type()
        # All that is unsettled will be: calls that come before the end of this raise with the right number.
        self._discarded = await self._queue.depth()
        self._failure = failure
        if self._on_failed is not None:
            self._on_failed()
        await self._queue.close()
        self._discarded = await self._queue.discard()
        logger.error("%s; %d operations were dropped", failure, self._discarded)

    async def _first_type(self) -> str | None:
        """Return the type of the first operation that waits, where the queue can take it back."""
        if not self._queue.in_memory or self._queue.size() == 0:
            return None
        deliveries = await self._queue.receive(1, 1)
        await self._queue.release(deliveries)
        item = deliveries[0].item
        return item.type.name if isinstance(item, Operation) else None
