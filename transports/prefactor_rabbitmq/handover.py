"""What an owner that leaves cleanly tells the next one of the messages that go back with it.

The broker counts each time that it takes a message back, in a deployment as after a crash. So an owner that
hands a partition over leaves a note beside it: how many times each message that goes back went back cleanly,
as far as is known. A new note replaces the last one, and goes with the last message that it can name.

It is read only where it matters: when a message may be poison, or goes back once more and earlier times are
not explained. So acquiring a partition costs nothing more. A note that cannot be written or read makes later
owners handle operations in isolation without need, and does no other harm.
"""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelNotFoundEntity
from pamqp import commands
from pamqp.common import FieldValue
from pydantic_core import from_json, to_json

from prefactor_core.exceptions import BrokerError
from prefactor_rabbitmq.confirming import Outgoing
from prefactor_rabbitmq.errors import describe
from prefactor_rabbitmq.inbox import PREFETCH
from prefactor_rabbitmq.link import Link
from prefactor_rabbitmq.memory import Memory
from prefactor_rabbitmq.publishing import Outlet
from prefactor_rabbitmq.topology import Topology

logger = logging.getLogger("prefactor_rabbitmq")

LEAVE_SECONDS: Final = 2.0
"""For a note to be written; the next owner waits for that long."""
_VERSION: Final = 1
_MOST_BYTES: Final = 256 * PREFETCH
_ARGUMENTS: Final[dict[str, FieldValue]] = {
    "x-queue-type": "classic",  # made in a fraction of the time, and a note may be lost
    "x-max-length": 1,
    "x-expires": 24 * 60 * 60 * 1000,
}


class HandoverNote:
    """The notes of one ownership: the one that it finds, and the one that it leaves.

    Args:
        number: The partition.
        topology: The names.
        link: For declaring, reading and removing.
        outlet: For publishing the note.
        memory: What this process knows of messages.
    """

    def __init__(self, number: int, topology: Topology, link: Link, outlet: Outlet, memory: Memory) -> None:
        self._number = number
        self._queue = topology.names.handover(number)
        self._link = link
        self._outlet = outlet
        self._memory = memory
        self._known = False
        self._left = False
        self._lock = asyncio.Lock()

    @property
    def known(self) -> bool:
        """Whether the memory has what the last owner told."""
        return self._known

    async def read(self) -> None:
        """Take what the last owner told into the memory; what cannot be read was not told."""
        async with self._lock:
            if self._known:
                return
            try:
                async with self._link.bounded("reading a handover note"):
                    for fingerprint, survived in (await self._find()).items():
                        self._memory.learn(fingerprint, survived)
            except BrokerError as error:
                logger.debug("partition %d: what its last owner told is not known: %s", self._number, error)
            self._known = True

    async def leave(self, returns: Mapping[str, int]) -> None:
        """Tell the next owner of messages that have just gone back; what cannot be told is not.

        Args:
            returns: How often each had come back before, by what it is known by. That it was survived this
                time is in the memory already.
        """
        try:
            async with asyncio.timeout(LEAVE_SECONDS), self._lock:
                self._left = True  # what is there from now on is for the next owner
                if returns:
                    body = to_json({"v": _VERSION, "survived": await self._sum(returns)})
                    await self._outlet.publish([Outgoing("", self._queue, body)])
        except (BrokerError, TimeoutError) as error:
            logger.debug("partition %d: its next owner is told nothing: %s", self._number, describe(error))

    async def remove(self) -> None:
        """Remove the note, since nothing that it names is here any more. Else it expires."""
        async with self._lock:
            if self._left:
                return
            with suppress(BrokerError):
                async with self._link.bounded("removing a note"), self._link.brief_channel() as channel:
                    await channel.queue_delete(self._queue)

    async def _sum(self, returns: Mapping[str, int]) -> dict[str, int]:
        """Make the queue, and return how many times of each message were cleanly, this one included."""
        told: dict[str, int] = {}
        unexplained = not self._known and any(
            self._memory.survived(fingerprint) <= before for fingerprint, before in returns.items()
        )
        async with self._link.bounded("preparing a note"), self._link.brief_channel() as channel:
            await channel.queue_declare(self._queue, durable=True, arguments=_ARGUMENTS)
            if unexplained:
                told = await self._get(channel)
        for fingerprint in returns:
            # Of this time the last owner could not know.
            self._memory.learn(fingerprint, told.get(fingerprint, 0) + 1)
        return {fingerprint: self._memory.survived(fingerprint) for fingerprint in returns}

    async def _find(self) -> dict[str, int]:
        """Return what the note says, if there is one; to be called inside ``bounded``."""
        try:
            async with self._link.brief_channel() as channel:
                return await self._get(channel)
        except ChannelNotFoundEntity:
            return {}

    async def _get(self, channel: AbstractChannel) -> dict[str, int]:
        """Return what the note says; it goes back as the channel closes."""
        message = await channel.basic_get(self._queue)
        if isinstance(message.delivery, commands.Basic.GetEmpty):
            return {}
        try:
            return _survived(message.body)
        except ValueError as problem:
            logger.info("partition %d: its handover note is ignored: %s", self._number, problem)
            return {}


def _survived(body: bytes) -> dict[str, int]:
    """Return what a note says.

    Raises:
        ValueError: It is none that this version understands; the message quotes nothing of it.
    """
    if len(body) > _MOST_BYTES:
        raise ValueError("it is too large")
    try:
        note = from_json(body)
    except ValueError:
        raise ValueError("it is no JSON") from None
    if not isinstance(note, dict) or note.get("v") != _VERSION:
        raise ValueError("it is of an unknown version")
    survived = note.get("survived")
    if not isinstance(survived, dict) or not all(
        type(count) is int and count > 0 for count in survived.values()
    ):
        raise ValueError("it holds no counts")
    return survived
