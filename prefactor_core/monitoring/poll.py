"""The slow poll: asks for the status of instances whose agents may hear nothing otherwise."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from prefactor_core.api.replies import Reply, is_over, termination_of
from prefactor_core.api.wire import instance_path
from prefactor_core.monitoring.termination_monitor import TerminationMonitor

logger = logging.getLogger("prefactor_core")

_SHORTEST_GAP: Final = 0.1
"""Seconds between two questions at least: with very many instances a round takes longer instead."""


class TerminationPoll:
    """Asks for each instance that the monitor watches once in ``interval`` seconds, and tells the monitor."""

    def __init__(
        self, get: Callable[[str], Awaitable[Reply]], monitor: TerminationMonitor, interval: float
    ) -> None:
        self._get = get
        self._monitor = monitor
        self._interval = interval

    async def run(self) -> None:
        """Poll until cancelled. What fails is asked again in the next round."""
        while True:
            instances = self._monitor.running()
            gap = max(_SHORTEST_GAP, self._interval / max(1, len(instances)))
            if not instances:
                await asyncio.sleep(gap)
            for instance_id in instances:
                await asyncio.sleep(gap)
                reply = await self._get(instance_path(instance_id))
                reason = termination_of(reply)
                if reason is not None:
                    self._monitor.terminated(instance_id, reason)
                elif is_over(reply):
                    self._monitor.finished(instance_id)  # by another process
