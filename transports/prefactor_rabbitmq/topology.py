"""The exchange and queues that everybody agrees on, declared by the first process that comes."""

import asyncio
import logging
import re
from typing import Final

from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)
from pamqp.common import FieldValue

from prefactor_core.broker.options import MAX_PARTITIONS
from prefactor_core.exceptions import BrokerError
from prefactor_rabbitmq.link import Link
from prefactor_rabbitmq.names import Names

logger = logging.getLogger("prefactor_rabbitmq")

LEAST_VERSION: Final = (3, 10)
_LIMITED_VERSION: Final = (4, 0)
_BATCH: Final = 16
"""Queues declared within one limit of time: a new quorum queue takes some 10 ms, in a cluster 100."""
_PARTITION: Final[dict[str, FieldValue]] = {"x-single-active-consumer": True}
_MISMATCH: Final = re.compile(
    r"inequivalent arg '(?P<argument>[^']+)' .*"
    r"current is (?:the value )?'(?P<value>[^']*)'(?: of type '[^']*')?\s*$",
    re.DOTALL,
)


class Topology:
    """What one end knows of the exchange and the queues.

    Args:
        names: What they are called.
        wanted: Partitions to make where none are recorded.
    """

    def __init__(self, names: Names, wanted: int) -> None:
        self.names = names
        self.limited = False
        """Whether queues were found that drop what was delivered often (their default in RabbitMQ 4)."""
        self._wanted = wanted
        self._count: int | None = None
        self._lock = asyncio.Lock()

    def invalidate(self) -> bool:
        """Declare everything once more before the next use: something is missing.

        Returns:
            Whether that is news.
        """
        known, self._count = self._count is not None, None
        return known

    async def ensure(self, link: Link) -> int:
        """Declare everything that is not known to be there; return the number of partitions.

        Raises:
            BrokerError: The broker is unavailable or refuses, or something of that name is not ours.
        """
        async with self._lock:
            if self._count is None:
                if link.version < LEAST_VERSION:
                    raise BrokerError("RabbitMQ 3.10 or newer is needed")
                count = await self._record(link)
                await self._declare_exchange(link)
                await self._declare(link, self.names.dead, {})
                for first in range(0, count, _BATCH):
                    await self._declare_partitions(link, range(first, min(first + _BATCH, count)))
                self._count = count
            return self._count

    async def look(self, link: Link) -> list[str]:
        """Compare what is there with what is needed, and return what has been lost. Makes nothing.

        Raises:
            BrokerError: The broker is unavailable or refuses, or something of that name is not ours.
        """
        recorded = await self.recorded(link)
        missing: list[str] = []
        if await self._is_there(link, self.names.exchange, exchange=True):
            await self._declare_exchange(link)
        else:
            missing.append(self.names.exchange)
        queues: dict[str, dict[str, FieldValue]] = {self.names.dead: {}}
        queues |= {self.names.partition(number): _PARTITION for number in range(recorded or self._wanted)}
        for queue, arguments in queues.items():
            if await self._is_there(link, queue):
                await self._declare(link, queue, arguments)
            else:
                missing.append(queue)
        return [] if recorded is None else missing

    async def recorded(self, link: Link) -> int | None:
        """Return the number of partitions without declaring anything; ``None`` if there are none yet."""
        if self._count is not None:
            return self._count
        async with link.bounded("looking for the partitions"):
            try:
                async with link.brief_channel() as channel:
                    await channel.queue_declare(self.names.record, passive=True)
            except ChannelNotFoundEntity:
                return None
        return await self._record(link)

    async def _record(self, link: Link) -> int:
        """Return the recorded number of partitions, or record the wanted one.

        The broker compares a queue's arguments with those it was made with, and names the difference.
        """
        async with link.bounded("recording the number of partitions"):
            try:
                async with link.brief_channel() as channel:
                    await channel.queue_declare(
                        self.names.record,
                        durable=True,
                        arguments={"x-queue-type": "quorum", "x-max-length": self._wanted},
                    )
            except ChannelPreconditionFailed as error:
                return recorded_count(str(error), self.names.record)
            except ChannelAccessRefused as error:
                raise _refused(self.names.record, error) from None
            return self._wanted

    async def _declare_exchange(self, link: Link) -> None:
        async with link.bounded("declaring the exchange"):
            try:
                async with link.brief_channel() as channel:
                    await channel.exchange_declare(self.names.exchange, exchange_type="direct", durable=True)
            except ChannelPreconditionFailed as error:
                raise foreign(f"the exchange {self.names.exchange}", str(error)) from None
            except ChannelAccessRefused as error:
                raise _refused(self.names.exchange, error) from None

    async def _declare_partitions(self, link: Link, numbers: range) -> None:
        async with link.bounded("binding the partitions"):
            for number in numbers:
                await self._declare(link, self.names.partition(number), _PARTITION)
            async with link.brief_channel() as channel:
                for number in numbers:
                    queue = self.names.partition(number)
                    await channel.queue_bind(queue, self.names.exchange, routing_key=str(number))

    async def _is_there(self, link: Link, name: str, *, exchange: bool = False) -> bool:
        """Look, to be sure that declaring it compares and makes nothing."""
        async with link.bounded(f"looking for {name}"):
            try:
                async with link.brief_channel() as channel:
                    if exchange:
                        await channel.exchange_declare(name, passive=True)
                    else:
                        await channel.queue_declare(name, passive=True)
            except ChannelNotFoundEntity:
                return False
            except ChannelAccessRefused as error:
                raise _refused(name, error) from None
        return True

    async def _declare(self, link: Link, queue: str, arguments: dict[str, FieldValue]) -> None:
        async with link.bounded(f"declaring {queue}"):
            try:
                async with link.brief_channel() as channel:
                    await channel.queue_declare(queue, durable=True, arguments=quorum(link, arguments))
            except ChannelPreconditionFailed as error:
                if difference(str(error))[0] != "x-delivery-limit":
                    raise foreign(f"the queue {queue}", str(error)) from None
                self._accept_limited(queue)
            except ChannelAccessRefused as error:
                raise _refused(queue, error) from None

    def _accept_limited(self, queue: str) -> None:
        """Use a queue that an older RabbitMQ made, before this one got a limit of deliveries."""
        if not self.limited:
            logger.warning(
                "the queue %s was made without x-delivery-limit=-1: RabbitMQ 4 drops what it has delivered "
                "too often; set a policy with delivery-limit -1 for it, or drain and delete it",
                queue,
            )
        self.limited = True


def quorum(link: Link, arguments: dict[str, FieldValue]) -> dict[str, FieldValue]:
    """Return the arguments of a quorum queue that never drops what was delivered often."""
    limit: dict[str, FieldValue] = {"x-delivery-limit": -1} if link.version >= _LIMITED_VERSION else {}
    return {"x-queue-type": "quorum", **limit, **arguments}


def difference(text: str) -> tuple[str, str]:
    """Return the argument in which a queue is not as declared, and its value; empty if that is not said."""
    found = _MISMATCH.search(text)
    return (found["argument"], found["value"]) if found else ("", "")


def recorded_count(text: str, queue: str) -> int:
    """Return the number of partitions from the broker's refusal to declare another.

    Raises:
        BrokerError: The refusal is about something else: the queue is not ours.
    """
    argument, value = difference(text)
    if argument != "x-max-length" or not value.isdigit() or not 1 <= int(value) <= MAX_PARTITIONS:
        raise foreign(f"the queue {queue}", text)
    return int(value)


def foreign(what: str, text: str) -> BrokerError:
    """Return the error for something that exists and is not what we need."""
    reason = text.partition(" - ")[2] or text
    return BrokerError(
        f"{what} exists and was not made by this version ({reason}): "
        "choose another prefix, or drain and delete it"
    )


def _refused(what: str, error: Exception) -> BrokerError:
    return BrokerError(f"the user may not declare {what}: grant configure, write and read ({error})")
