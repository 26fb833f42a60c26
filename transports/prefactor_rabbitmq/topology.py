"""The exchange and queues that everybody agrees on, declared by the first process that comes."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity, ChannelPreconditionFailed
from pamqp.common import FieldValue

from prefactor_core.transport import MAX_PARTITIONS, BrokerError
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
    """What one end knows of the exchange and the queues."""

    def __init__(self, names: Names, wanted: int) -> None:
        self.names = names
        self.limited = False
        """Whether queues were found that drop what was delivered often (their default in RabbitMQ 4)."""
        self._wanted = wanted  # partitions to make where none are recorded
        self._count: int | None = None
        self._lock = asyncio.Lock()

    def invalidate(self) -> bool:
        """Declare everything anew before the next use: something is missing. Return whether that is news."""
        known, self._count = self._count is not None, None
        return known

    async def ensure(self, link: Link) -> int:
        """Declare everything that is not known to be there; return the number of partitions.

        Raises:
            BrokerError: Also if something of that name is not ours.
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
        """Compare what is there with what ``ensure`` makes, and return what has been lost. Makes nothing."""
        recorded = await self.recorded(link)
        missing: list[str] = []
        async with link.brief_channel("looking for the exchange") as channel:
            try:
                await channel.exchange_declare(self.names.exchange, passive=True)
            except ChannelNotFoundEntity:
                missing.append(self.names.exchange)
        if not missing:  # to declare it compares and makes nothing
            await self._declare_exchange(link)
        queues: dict[str, dict[str, FieldValue]] = {self.names.dead: {}}
        queues |= {self.names.partition(number): _PARTITION for number in range(recorded or self._wanted)}
        for queue, arguments in queues.items():
            if (await link.look(queue, f"looking for {queue}")).exists:
                await self._declare(link, queue, arguments)
            else:
                missing.append(queue)
        return [] if recorded is None else missing

    async def recorded(self, link: Link) -> int | None:
        """Return the number of partitions without declaring anything; ``None`` if there are none yet."""
        if self._count is not None:
            return self._count
        if not (await link.look(self.names.record, "looking for the partitions")).exists:
            return None
        return await self._record(link)

    async def _record(self, link: Link) -> int:
        """Return the recorded number of partitions, or record the wanted one.

        The broker compares a queue's arguments with those it was made with, and names the difference.
        """
        queue = self.names.record
        arguments: dict[str, FieldValue] = {"x-queue-type": "quorum", "x-max-length": self._wanted}
        async with _declaring(link, f"the queue {queue}") as channel:
            try:
                await channel.queue_declare(queue, durable=True, arguments=arguments)
            except ChannelPreconditionFailed as error:
                return recorded_count(str(error), queue)
        return self._wanted

    async def _declare_exchange(self, link: Link) -> None:
        exchange = self.names.exchange
        async with _declaring(link, f"the exchange {exchange}") as channel:
            await channel.exchange_declare(exchange, exchange_type="direct", durable=True)

    async def _declare_partitions(self, link: Link, numbers: range) -> None:
        async with link.bounded("declaring the partitions"):
            for number in numbers:
                await self._declare(link, self.names.partition(number), _PARTITION)
            async with link.brief_channel("binding the partitions") as channel:
                for number in numbers:
                    queue = self.names.partition(number)
                    await channel.queue_bind(queue, self.names.exchange, routing_key=str(number))

    async def _declare(self, link: Link, queue: str, arguments: dict[str, FieldValue]) -> None:
        async with _declaring(link, f"the queue {queue}") as channel:
            try:
                await channel.queue_declare(queue, durable=True, arguments=quorum(link, arguments))
            except ChannelPreconditionFailed as error:
                if difference(str(error))[0] != "x-delivery-limit":
                    raise
                # An older RabbitMQ made it, before this one got a limit of deliveries.
                if not self.limited:
                    logger.warning(
                        "the queue %s was made without x-delivery-limit=-1: RabbitMQ 4 drops what it has "
                        "delivered too often; set a policy with delivery-limit -1 for it, or drain and "
                        "delete it",
                        queue,
                    )
                self.limited = True


@asynccontextmanager
async def _declaring(link: Link, what: str) -> AsyncIterator[AbstractChannel]:
    """Open a channel to declare something; say what is in the way of that."""
    async with link.brief_channel(f"declaring {what}") as channel:
        try:
            yield channel
        except ChannelPreconditionFailed as error:
            raise foreign(what, str(error)) from None
        except ChannelAccessRefused as error:
            raise BrokerError(
                f"the user may not declare {what}: grant configure, write and read ({error})"
            ) from None


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
