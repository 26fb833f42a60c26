"""Releasing partitions, and doing it later when the broker is unavailable."""

import asyncio
import logging
from typing import Final

from prefactor_core.transport import BrokerError
from prefactor_redis.keys import PartitionKeys
from prefactor_redis.lease_scripts import CRASHES, RELEASE
from prefactor_redis.servers import Links

logger = logging.getLogger("prefactor_redis")

_MOST: Final = 2_048
"""Losses that are remembered; beyond, the oldest stand as crashes."""


async def release(links: Links, keys: PartitionKeys, token: bytes) -> None:
    """Say that the owner with this token did not crash, and owns the partition no longer; may be repeated."""
    link = await links.of(keys.lease)
    await link.run(RELEASE, keys.owned, (token, CRASHES))


class Unreleased:
    """Remembers partitions that were lost before their release reached the broker, and releases them later.

    To their next owners it looks as if this one had crashed. As it lives, it says so once it can.
    """

    def __init__(self, links: Links) -> None:
        self._links = links
        self._keys: dict[bytes, PartitionKeys] = {}

    def add(self, keys: PartitionKeys, token: bytes) -> None:
        """Remember a partition and the token by which it was owned."""
        self._keys[token] = keys
        while len(self._keys) > _MOST:
            del self._keys[next(iter(self._keys))]

    async def tell(self, seconds: float) -> None:
        """Release all; what does not work in that time is for the next call."""
        try:
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as together:
                for token, keys in self._keys.items():
                    together.create_task(self._tell(keys, token))
        except TimeoutError:
            logger.debug("%d partitions that were lost are not told of yet", len(self._keys))

    async def _tell(self, keys: PartitionKeys, token: bytes) -> None:
        try:
            await release(self._links, keys, token)
        except BrokerError as error:
            logger.debug("a partition that was lost is not told of yet: %s", error)
        else:
            self._keys.pop(token, None)
