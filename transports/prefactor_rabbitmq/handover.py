"""What an owner that releases a partition tells the next one of the messages that go back with it.

The broker counts each time that it takes a message back, in a deployment as after a crash. So an owner that
hands a partition over leaves a note beside it: how many times each message that goes back went back cleanly,
as far as is known. A new note replaces the last one, and goes with the last message that it can name.

It is read only when a message may be poison, or goes back once more and earlier times are not explained. One
that cannot be written or read makes later owners handle operations in isolation without need, no worse.
"""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Literal

from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelNotFoundEntity
from pamqp.common import FieldValue
from pydantic import BaseModel, PositiveInt, ValidationError

from prefactor_core.transport import BrokerError
from prefactor_rabbitmq.confirming import Outgoing
from prefactor_rabbitmq.errors import describe
from prefactor_rabbitmq.inbox import PREFETCH, Memory
from prefactor_rabbitmq.link import Link, get_message
from prefactor_rabbitmq.names import Names
from prefactor_rabbitmq.publishing import Outlet

logger = logging.getLogger("prefactor_rabbitmq")

LEAVE_SECONDS: Final = 2.0
"""For a note to be written; the next owner waits for that long."""
_MOST_BYTES: Final = 256 * PREFETCH
_ARGUMENTS: Final[dict[str, FieldValue]] = {
    "x-queue-type": "classic",  # made in a fraction of the time, and a note may be lost
    "x-max-length": 1,
    "x-expires": 24 * 60 * 60 * 1000,
}


class _Note(BaseModel, strict=True):
    """How many returns of messages were clean, by what each is known by."""

    v: Literal[1]
    survived: dict[str, PositiveInt]


class HandoverNote:
    """The notes of one ownership: the one that it finds, and the one that it leaves."""

    def __init__(self, number: int, names: Names, link: Link, outlet: Outlet, memory: Memory) -> None:
        self.known = False
        """Whether the memory has what the last owner told."""
        self._number = number
        self._queue = names.handover(number)
        self._link = link
        self._outlet = outlet
        self._memory = memory
        self._left = False
        self._lock = asyncio.Lock()

    async def read(self) -> None:
        """Take what the last owner told into the memory; what cannot be read was not told."""
        async with self._lock:
            if self.known:
                return
            try:
                async with self._link.brief_channel("reading a handover note") as channel:
                    told = await self._get(channel)
                for fingerprint, survived in told.items():
                    self._memory.learn(fingerprint, survived)
            except BrokerError as error:
                logger.debug("partition %d: what its last owner told is not known: %s", self._number, error)
            self.known = True

    async def leave(self, returns: Mapping[str, int]) -> None:
        """Tell the next owner how often messages that have just gone back had come back before, or do not.

        That they were survived this time is in the memory already.
        """
        try:
            async with asyncio.timeout(LEAVE_SECONDS), self._lock:
                self._left = True  # what is there from now on is for the next owner
                if returns:
                    note = _Note(v=1, survived=await self._sum(returns))
                    await self._outlet.publish([Outgoing("", self._queue, note.model_dump_json().encode())])
        except (BrokerError, TimeoutError) as error:
            logger.debug("partition %d: its next owner is told nothing: %s", self._number, describe(error))

    async def remove(self) -> None:
        """Remove the note, since nothing that it names is here any more. Else it expires."""
        async with self._lock:
            if self._left:
                return
            with suppress(BrokerError):
                await self._link.delete(self._queue, "removing a note")

    async def _sum(self, returns: Mapping[str, int]) -> dict[str, int]:
        """Make the queue, and return how many times of each message were cleanly, this one included."""
        told: dict[str, int] = {}
        unexplained = not self.known and any(
            self._memory.survived(fingerprint) <= before for fingerprint, before in returns.items()
        )
        async with self._link.brief_channel("preparing a note") as channel:
            await channel.queue_declare(self._queue, durable=True, arguments=_ARGUMENTS)
            if unexplained:
                told = await self._get(channel)
        for fingerprint in returns:
            # Of this time the last owner could not know.
            self._memory.learn(fingerprint, told.get(fingerprint, 0) + 1)
        return {fingerprint: self._memory.survived(fingerprint) for fingerprint in returns}

    async def _get(self, channel: AbstractChannel) -> dict[str, int]:
        """Return what the note says, if there is one; it goes back as the channel closes."""
        try:
            message = await get_message(channel, self._queue)
        except ChannelNotFoundEntity:
            return {}
        if message is None:
            return {}
        problem = "it is too large"
        if len(message.body) <= _MOST_BYTES:
            try:
                return _Note.model_validate_json(message.body).survived
            except ValidationError as error:
                problem = error.errors(include_input=False, include_url=False)[0]["msg"]
        logger.info("partition %d: its handover note is ignored: %s", self._number, problem)
        return {}
