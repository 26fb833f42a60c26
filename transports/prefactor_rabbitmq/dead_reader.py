"""Who reads the dead letters: one at a time, since what one reader has got is hidden from the others."""

import asyncio
import logging
from typing import Final

from aiormq.exceptions import ChannelLockedResource, ChannelNotFoundEntity

from prefactor_core.exceptions import BrokerError
from prefactor_rabbitmq.link import Link
from prefactor_rabbitmq.names import Names

logger = logging.getLogger("prefactor_rabbitmq")

WAIT_SECONDS: Final = 30.0
"""For another reader to finish."""
LOOK_SECONDS: Final = 5.0
"""For which it is enough to see that letters are read. Then the lock is tried: that may be out of date."""
RETURN_SECONDS: Final = 5.0
"""For letters to be back whose reader has no lock any more."""
_PAUSE: Final = 0.1
_LOCKED: Final = 0.5
"""Seconds between two tries that the broker refuses: it logs an error for each."""


class DeadReader:
    """The right to read the dead letters: an exclusive queue, which only one connection can have.

    Args:
        names: Of the queues.
        name: What messages call the broker.
    """

    def __init__(self, names: Names, name: str) -> None:
        self._names = names
        self._name = name
        self._held_by: Link | None = None

    async def acquire(self, link: Link) -> None:
        """Wait for other readers, and be the only one for as long as the connection lasts.

        Raises:
            BrokerError: They have not finished in time, or the broker is unavailable.
        """
        if self._held_by is link:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + WAIT_SECONDS
        looking_until = loop.time() + LOOK_SECONDS
        while True:
            pause = _PAUSE
            # Nearly every reader shows without a try, which the broker would log as an error.
            if loop.time() >= looking_until or not await self._readings(link):
                if await self._take(link):
                    self._held_by = link
                    return
                pause = _LOCKED
                looking_until = loop.time() + LOOK_SECONDS
            if loop.time() + pause > deadline:
                raise BrokerError(
                    f"another command is reading the dead letters of {self._name}; "
                    "try again when it has finished"
                )
            await asyncio.sleep(pause)

    async def wait_for_returns(self, link: Link) -> int:
        """Wait until all is back that somebody has read, such as a reader that was killed just now.

        Its lock may go a moment before its letters are back.

        Returns:
            How many are not back, by what the broker says. While the node is down that their reader was
            connected to, it says so of letters that are back, too.

        Raises:
            BrokerError: The broker is unavailable.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + RETURN_SECONDS
        while readings := await self._readings(link):
            if loop.time() > deadline:
                logger.warning(
                    "%s: %d dead letters may be missing here: somebody reads them who does not wait for "
                    "others, or did so through a node that is down",
                    self._name,
                    readings,
                )
                break
            await asyncio.sleep(_PAUSE)
        return readings

    async def _readings(self, link: Link) -> int:
        """Return how many letters are with readers: a quorum queue counts each of them as a consumer."""
        async with link.bounded("looking for readers of the dead letters"):
            try:
                async with link.brief_channel() as channel:
                    declared = await channel.queue_declare(self._names.dead, passive=True)
            except ChannelNotFoundEntity:
                return 0
        return declared.consumer_count or 0

    async def _take(self, link: Link) -> bool:
        async with link.bounded("locking the dead letters"):
            try:
                async with link.brief_channel() as channel:
                    await channel.queue_declare(self._names.dead_reader, exclusive=True)
            except ChannelLockedResource:
                return False
        return True
