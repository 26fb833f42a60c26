"""The fleet: everybody who consumes from one queue into which nothing is ever put."""

import asyncio

from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import ChannelNotFoundEntity
from pamqp import commands

from prefactor_rabbitmq.link import Link

_DURABLE_FROM = (4, 0)


class Roll:
    """This process's place in the fleet; the broker removes the queue with its last consumer.

    Args:
        queue: Its name.
    """

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._link: Link | None = None
        self._channel: AbstractChannel | None = None
        self._lock = asyncio.Lock()

    async def size(self, link: Link) -> int:
        """Join, or stay, and return how many there are.

        Raises:
            BrokerError: The broker is away.
        """
        async with self._lock, link.bounded("joining the fleet"):
            try:
                return await self._count(link)
            except ChannelNotFoundEntity:
                # Deleted, or the last consumer went just now and the queue with it.
                self._channel = None
                return await self._count(link)

    async def _count(self, link: Link) -> int:
        channel = self._channel
        if channel is None or channel.is_closed or self._link is not link:
            channel = await link.channel()
            # Not durable, for its node may go; RabbitMQ 4 no longer likes such queues.
            await channel.queue_declare(self._queue, durable=link.version >= _DURABLE_FROM, auto_delete=True)
            channel.on_consumer_cancel_callbacks.add(self._leave)
            await channel.basic_consume(self._queue, _ignore, no_ack=True)
            self._channel, self._link = channel, link
        declared = await channel.queue_declare(self._queue, passive=True)
        return max(1, declared.consumer_count or 0)

    def _leave(self, _: commands.Basic.Cancel) -> None:
        self._channel = None


async def _ignore(_: DeliveredMessage) -> None:
    """Drop what a stranger put into the queue."""
