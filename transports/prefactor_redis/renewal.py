"""The task that renews the leases of all partitions that a worker owns."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from prefactor_core.transport import BrokerError, Outage
from prefactor_redis.lease_scripts import RENEW
from prefactor_redis.link import Link
from prefactor_redis.partition import RedisPartition
from prefactor_redis.servers import Links

logger = logging.getLogger("prefactor_redis")

RENEWALS: Final = 4
"""In the time of one lease."""


class LeaseRenewal:
    """Renews leases on connections of their own, so that nothing else holds a renewal up."""

    def __init__(self, links: Links, seconds: float) -> None:
        self._links = links
        self._interval = seconds / RENEWALS
        self._partitions: list[RedisPartition] = []
        self._task: asyncio.Task[None] | None = None
        self._outage = Outage(logger, "renewing leases", "failed, and the partitions will be lost")

    def add(self, partition: RedisPartition) -> None:
        """Renew a lease from now on, while it is held."""
        self._partitions.append(partition)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._renew_for_ever(), name="prefactor-redis-leases")
            self._task.add_done_callback(self._log_end)

    async def close(self) -> None:
        """Renew nothing more, and close the connections."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._partitions = []
        await self._links.aclose()

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            for partition in self._partitions:
                if not partition.held:
                    partition.stop()
            self._partitions = [partition for partition in self._partitions if partition.held]
            await self._renew_all()
            self._outage.worked(self)

    async def _renew_all(self) -> None:
        try:
            async with asyncio.timeout(self._interval):
                groups = await self._links.grouped(self._partitions, lambda one: one.keys.lease)
        except (BrokerError, TimeoutError) as error:
            logger.debug("leases were not renewed: %s", error)
            return
        # A server that hangs must not hold up the leases on the others.
        async with asyncio.TaskGroup() as together:
            for link, own in groups.items():
                together.create_task(self._renew(link, own))

    async def _renew(self, link: Link, partitions: Sequence[RedisPartition]) -> None:
        renewals = [partition.renewal() for partition in partitions]
        try:
            replies = await link.run_each(RENEW, [call for call, _ in renewals])
            for (_, take), reply in zip(renewals, replies, strict=True):
                take(reply)
        except BrokerError as error:
            logger.debug("leases were not renewed: %s", error)

    def _log_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._outage.failed(self, error)
