"""Watching a worker from inside: the gauges that have to be asked for, and what probes are answered from."""

import asyncio
import logging
import math
import time
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from prefactor_core.api.circuit_breaker import CircuitBreaker, CircuitState
from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.exceptions import BrokerError
from prefactor_core.queue.executor import TaskExecutor
from prefactor_worker.broker import disagreement
from prefactor_worker.run.health import Health
from prefactor_worker.run.meter import Meter

logger = logging.getLogger("prefactor_worker")

_TICK: Final = 1.0
_LOOKS: Final = 10
"""Ticks between two looks at what waits at the broker."""


class Watch:
    """Keeps gauges and health up to date; ``partitions`` is how many the URL asks for, if it does."""

    def __init__(
        self,
        queue: BrokerQueue,
        executor: TaskExecutor,
        breaker: CircuitBreaker,
        health: Health,
        meter: Meter,
        registry: CollectorRegistry,
        partitions: int | None,
    ) -> None:
        self._asked_partitions = partitions
        self._meter = meter
        self._name, self._consumer = queue.broker.name, queue.consumer
        self._breaker = breaker
        self._executor = executor
        self._health = health
        gauge = partial(Gauge, registry=registry)
        self._backlog = gauge(
            "prefactor_partition_backlog", "Operations that are not settled.", ["partition"]
        )
        self._oldest = gauge(
            "prefactor_partition_oldest_seconds",
            "Age of the oldest operation that is not settled; 0 without one, or where it is not known.",
            ["partition"],
        )
        owned = gauge("prefactor_partitions_owned", "Partitions that this worker owns.")
        owned.set_function(lambda: len(queue.consumer.owned))
        self._unowned = gauge(
            "prefactor_partitions_unowned",
            "Partitions that no worker owns, by what the broker says; NaN while it is unavailable.",
        )
        self._unowned.set(math.nan)
        prefetched = gauge(
            "prefactor_operations_prefetched", "Operations that this worker has read and not disposed of."
        )
        prefetched.set_function(lambda: executor.prefetched)
        self._unavailable = gauge("prefactor_api_unavailable", "1 while the API is waited for.")
        self._refused = gauge("prefactor_api_token_refused", "1 while the API refuses the token.")
        self._paused = gauge("prefactor_api_paused_seconds", "For how long the API asks everybody to wait.")
        self._broker_unavailable = gauge("prefactor_broker_unavailable", "1 while the broker is unavailable.")

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
        state, health = self._breaker.state, self._health
        health.ticked_at = time.monotonic()
        self._unavailable.set(state.unavailable is not None)
        self._refused.set(state.token_refused)
        self._paused.set(state.paused)
        health.paused = state.paused
        health.waiting_for = self._waits_for(state)  # in one step: probes are answered by another thread
        self._meter.dead_lettered_unread(self._consumer.dead_lettered_unread)
        self._meter.take_over(self._executor.account)
        health.broker_problem = self._consumer.problem
        self._broker_unavailable.set(health.broker_problem is not None)

    def _waits_for(self, state: CircuitState) -> str | None:
        if state.token_refused:
            return "the API refuses the token; this worker stands aside"
        if state.unavailable is not None:
            return f"the API is unavailable: {state.unavailable}"
        holding = self._executor.holding
        return None if holding is None else f"the API takes nothing: {holding}"

    async def _look_at_broker(self) -> None:
        try:
            async with asyncio.timeout(_LOOKS * _TICK):
                states = await self._consumer.states()
        except (BrokerError, TimeoutError):
            self._unowned.set(math.nan)
            return  # the consumer says so, once
        if states:
            if (problem := disagreement(self._asked_partitions, len(states))) is not None:
                logger.warning("%s: %s", self._name, problem)
            self._asked_partitions = None  # said once
        self._unowned.set(sum(state.owner is None for state in states))
        for state in states:
            self._backlog.labels(state.number).set(state.backlog)
            # Not every broker can tell; this worker can, of what it holds itself.
            oldest = state.oldest if state.oldest is not None else self._consumer.oldest(state.number)
            age = 0.0 if oldest is None else max(0.0, time.time() - oldest)
            self._oldest.labels(state.number).set(age)
