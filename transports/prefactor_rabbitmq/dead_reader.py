"""Who reads the dead letters: one at a time, since what one reader has got is hidden from the others."""

import asyncio
from typing import Final

from aiormq.exceptions import ChannelLockedResource, ChannelNotFoundEntity

from prefactor_core.exceptions import BrokerError
from prefactor_rabbitmq.link import Link
from prefactor_rabbitmq.names import Names

WAIT_SECONDS: Final = 30.0
"""For another reader to finish."""
_RETURN_SECONDS: Final = 5.0
_LOOK: Final = 0.1
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
        while True:
            pause = _LOOK
            # Nearly every reader shows without a try, which the broker would log as an error.
            if not await self._is_read(link):
                if await self._take(link):
                    self._held_by = link
                    return
                pause = _LOCKED
            if loop.time() + pause > deadline:
                raise self._busy()
            await asyncio.sleep(pause)

    async def wait_for_returns(self, link: Link) -> None:
        """Wait until all is back that somebody has read, such as a reader that was killed just now.

        Its exclusive queue may go a moment before its letters are back.

        Raises:
            BrokerError: Somebody reads them without asking, or the broker is unavailable.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _RETURN_SECONDS
        while await self._is_read(link):
            if loop.time() > deadline:
                raise self._busy()
            await asyncio.sleep(_LOOK)

    async def _is_read(self, link: Link) -> bool:
        """Return whether somebody has letters: a quorum queue counts those too among its consumers."""
        async with link.bounded("looking for readers of the dead letters"):
            try:
                async with link.brief_channel() as channel:
                    declared = await channel.queue_declare(self._names.dead, passive=True)
            except ChannelNotFoundEntity:
                return False
        return bool(declared.consumer_count)

    async def _take(self, link: Link) -> bool:
        async with link.bounded("locking the dead letters"):
            try:
                async with link.brief_channel() as channel:
                    await channel.queue_declare(self._names.dead_reader, exclusive=True)
            except ChannelLockedResource:
                return False
        return True

    def _busy(self) -> BrokerError:
        return BrokerError(
            f"another command is reading the dead letters of {self._name}; try again when it has finished"
        )
