"""Owning partitions: a lease that is judged without the network, and the task that renews all of an end's."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from prefactor_core.exceptions import BrokerError
from prefactor_core.outage import Outage
from prefactor_redis.keys import PartitionKeys
from prefactor_redis.lease_scripts import RENEW
from prefactor_redis.link import Link
from prefactor_redis.links import Links
from prefactor_redis.replies import Reply
from prefactor_redis.unreleased import release

logger = logging.getLogger("prefactor_redis")

SAFE_PART: Final = 0.8
"""Of a lease, what its owner counts on: clocks of two machines do not run at quite the same speed."""
_RENEWALS: Final = 4
"""In the time of one lease."""


class Lease:
    """What this process knows of a lease: until when it is certainly its own.

    Args:
        seconds: For how long the broker gives it.
        asked_at: When it was asked for: before the broker can have begun to count.
        clock: Seconds that only grow.
    """

    def __init__(self, seconds: float, asked_at: float, clock: Callable[[], float]) -> None:
        self._safe = seconds * SAFE_PART
        self._clock = clock
        self._until = asked_at + self._safe
        self._held = True

    @property
    def held(self) -> bool:
        """Whether it is certainly held now; once it is not, it never is again."""
        if self._held and self._clock() >= self._until:
            self._held = False
        return self._held

    def renewed(self, asked_at: float) -> None:
        """Take note that the broker renewed it when it was asked at that time."""
        if self.held:
            self._until = max(self._until, asked_at + self._safe)

    def end(self) -> None:
        """Hold it no longer."""
        self._held = False


@dataclass(frozen=True, slots=True)
class Renewal:
    """One renewal on its way.

    Attributes:
        keys: Of the partition.
        token: Of the owner.
        milliseconds: For how long.
        take: Takes the reply, and says whether the partition can be kept.
    """

    keys: PartitionKeys
    token: bytes
    milliseconds: int
    take: Callable[[Reply], bool]


class Leased(Protocol):
    """A partition, as far as renewing its lease goes."""

    @property
    def lease_key(self) -> bytes:
        """Where its lease is."""

    @property
    def held(self) -> bool:
        """Whether there is anything to renew."""

    def expired(self) -> None:
        """Take note that it is held no longer."""

    def renewal(self) -> Renewal:
        """Return a renewal to be sent at once."""


class Keeper:
    """Renews leases in a task of its own, on connections of their own: nothing else can hold them up.

    Args:
        links: Those connections.
        seconds: For how long a lease is given.
    """

    def __init__(self, links: Links, seconds: float) -> None:
        self._links = links
        self._interval = seconds / _RENEWALS
        self._kept: list[Leased] = []
        self._task: asyncio.Task[None] | None = None
        self._outage = Outage(logger, "renewing leases", "failed, and the partitions will be lost")

    def keep(self, partition: Leased) -> None:
        """Renew a lease from now on, while it is held."""
        self._kept.append(partition)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._renew_for_ever(), name="prefactor-redis-leases")
            self._task.add_done_callback(self._say_what_ended)

    async def close(self) -> None:
        """Renew nothing more, and close the connections."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._kept = []
        await self._links.close()

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            for partition in self._kept:
                if not partition.held:
                    partition.expired()
            self._kept = [partition for partition in self._kept if partition.held]
            await self._renew_all()
            self._outage.worked(self)

    async def _renew_all(self) -> None:
        kept = self._kept
        keys = [(number, one.lease_key) for number, one in enumerate(kept)]
        try:
            async with asyncio.timeout(self._interval):
                groups = await self._links.grouped(keys)
        except (BrokerError, TimeoutError) as error:
            logger.debug("leases were not renewed: %s", error)
            return
        # A server that hangs must not hold up the leases on the others.
        async with asyncio.TaskGroup() as together:
            for link, numbers in groups.items():
                together.create_task(self._renew(link, [kept[number] for number in numbers]))

    async def _renew(self, link: Link, partitions: Sequence[Leased]) -> None:
        sent = [partition.renewal() for partition in partitions]
        calls = [(one.keys.owned, (one.token, one.milliseconds)) for one in sent]
        try:
            replies = await link.run_each(RENEW, calls)
            for one, reply in zip(sent, replies, strict=True):
                if not one.take(reply):
                    await release(self._links, one.keys, one.token)
        except BrokerError as error:
            logger.debug("leases were not renewed: %s", error)

    def _say_what_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._outage.failed(self, error)
