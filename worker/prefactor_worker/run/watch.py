"""Watching a worker from inside: the gauges that have to be asked for, and what probes are answered from."""

import asyncio
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from prefactor_core.api.circuit_breaker import CircuitBreaker
from prefactor_core.broker.driver import PartitionState
from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.exceptions import BrokerError
from prefactor_core.queue.executor import TaskExecutor
from prefactor_worker.run.health import Health
from prefactor_worker.run.meter import Meter
from prefactor_worker.run.partitions import disagreement
from prefactor_worker.run.server import serving

logger = logging.getLogger("prefactor_worker")

_TICK: Final = 1.0
_LOOKS: Final = 10
"""Ticks between two looks at what waits at the broker."""


class Watch:
    """Keeps gauges and health up to date.

    Args:
        queue: The broker.
        executor: What works on it.
        breaker: The API.
        health: What probes are answered from.
        meter: What has been counted.
        registry: Where the gauges are shown.
        partitions: How many the URL asks for, if it does.
    """

    def __init__(
        self,
        queue: BrokerQueue,
        executor: TaskExecutor,
        breaker: CircuitBreaker,
        health: Health,
        meter: Meter,
        registry: CollectorRegistry,
        partitions: int | None = None,
    ) -> None:
        self._asked_partitions = partitions
        self._meter = meter
        self._queue = queue
        self._breaker = breaker
        self._executor = executor
        self._health = health
        self._registry = registry
        self._waiting = Gauge(
            "prefactor_partition_backlog",
            "Operations that are not settled.",
            ["partition"],
            registry=registry,
        )
        self._oldest = Gauge(
            "prefactor_partition_oldest_seconds",
            "Age of the oldest operation that is not settled; 0 without one, or where it is not known.",
            ["partition"],
            registry=registry,
        )
        self._owned = Gauge(
            "prefactor_partitions_owned", "Partitions that this worker owns.", registry=registry
        )
        self._unowned = Gauge(
            "prefactor_partitions_unowned",
            "Partitions that no worker owns, by what the broker says; NaN while it is unavailable.",
            registry=registry,
        )
        self._held = Gauge(
            "prefactor_operations_prefetched", "Operations that this worker holds.", registry=registry
        )
        self._away = Gauge("prefactor_api_unavailable", "1 while the API is waited for.", registry=registry)
        self._refused = Gauge(
            "prefactor_api_token_refused", "1 while the API refuses the token.", registry=registry
        )
        self._paused = Gauge(
            "prefactor_api_paused_seconds", "For how long the API asks everybody to wait.", registry=registry
        )
        self._broker_unavailable = Gauge(
            "prefactor_broker_unavailable", "1 while the broker is unavailable.", registry=registry
        )
        self._unowned.set(math.nan)
        self._owned.set_function(lambda: len(queue.consumer.owned))
        self._held.set_function(lambda: executor.held)

    @contextmanager
    def serving(self, host: str, port: int) -> Iterator[None]:
        """Serve ``/metrics``, ``/healthz`` and ``/readyz`` in a thread; nowhere with port 0.

        Raises:
            ListenError: The port is taken.
        """
        if not port:
            yield
            return
        with serving(host, port, self._registry, self._health):
            yield

    async def run(self) -> None:
        """Look at everything, for ever."""
        tick = 0
        while True:
            self._look_here()
            if tick % _LOOKS == 0:
                await self._look_at_broker()
            tick += 1
            await asyncio.sleep(_TICK)

    def _look_here(self) -> None:
        self._health.ticked_at = time.monotonic()
        state = self._breaker.state
        self._away.set(state.unavailable is not None)
        self._refused.set(state.token_refused)
        self._paused.set(state.held)
        self._health.paused = state.held
        self._health.waiting_for = None
        if state.token_refused:
            self._health.waiting_for = "the API refuses the token; this worker stands aside"
        elif state.unavailable is not None:
            self._health.waiting_for = f"the API is unavailable: {state.unavailable}"
        elif self._executor.holding is not None:
            self._health.waiting_for = f"the API takes nothing: {self._executor.holding}"
        self._meter.quarantined(self._queue.consumer.quarantined)
        self._meter.went_back(self._executor.account.retried_by_type)
        problem = self._queue.consumer.problem
        self._health.broker_problem = problem
        self._broker_unavailable.set(problem is not None)

    async def _look_at_broker(self) -> None:
        try:
            async with asyncio.timeout(_LOOKS * _TICK):
                states = await self._queue.consumer.states()
        except (BrokerError, TimeoutError):
            self._unowned.set(math.nan)
            return  # the consumer says so, once
        if states:
            self._compare(len(states))
        self._unowned.set(sum(state.owner is None for state in states))
        for state in states:
            self._show(state)

    def _compare(self, recorded: int) -> None:
        """Warn, once, of a URL that asks for another number of partitions than the one that counts."""
        problem = disagreement(self._asked_partitions, recorded)
        if problem is not None:
            logger.warning("%s: %s", self._queue.broker.name, problem)
        self._asked_partitions = None

    def _show(self, state: PartitionState) -> None:
        self._waiting.labels(state.number).set(state.backlog)
        # Not every broker can tell; this worker can, of what it holds itself.
        oldest = state.oldest if state.oldest is not None else self._queue.consumer.oldest(state.number)
        age = 0.0 if oldest is None else max(0.0, time.time() - oldest)
        self._oldest.labels(state.number).set(age)
