"""Membership in the fleet, and among the workers that stand aside.

Members are counted as the consumers of a queue that stays empty.
"""

import asyncio

from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import ChannelNotFoundEntity
from pamqp import commands

from prefactor_rabbitmq.link import Link, close_channel

_DURABLE_FROM = (4, 0)


class Membership:
    """This process's membership; the broker removes the queue with its last consumer."""

    def __init__(self, queue: str, what: str) -> None:
        self._queue = queue
        self._what = what
        self._link: Link | None = None
        self._channel: AbstractChannel | None = None
        self._lock = asyncio.Lock()

    async def size(self, link: Link) -> int:
        """Join, or stay, and return how many there are."""
        async with self._lock, link.bounded(f"joining {self._what}"):
            try:
                return await self._count(link)
            except ChannelNotFoundEntity:
                # Deleted, or the last consumer went just now and the queue with it.
                self._channel = None
                return await self._count(link)

    async def leave(self) -> None:
        """Be counted no more, and hear so."""
        async with self._lock:
            link, channel, self._channel = self._link, self._channel, None
            # With a lost connection the broker has removed this process by itself.
            if link is not None and channel is not None and link.sound:
                async with link.bounded(f"leaving {self._what}"):
                    await close_channel(channel)

    async def look(self, link: Link) -> int:
        """Return how many there are, without joining."""
        return (await link.look(self._queue, f"counting {self._what}")).consumers

    async def _count(self, link: Link) -> int:
        channel = self._channel
        if channel is None or channel.is_closed or self._link is not link:
            channel = await link.channel()
            # Not durable, for its node may go; RabbitMQ 4 no longer likes such queues.
            await channel.queue_declare(self._queue, durable=link.version >= _DURABLE_FROM, auto_delete=True)
            channel.on_consumer_cancel_callbacks.add(self._on_cancel)
            await channel.basic_consume(self._queue, _ignore, no_ack=True)
            self._channel, self._link = channel, link
        declared = await channel.queue_declare(self._queue, passive=True)
        return max(1, declared.consumer_count or 0)

    def _on_cancel(self, _: commands.Basic.Cancel) -> None:
        self._channel = None


async def _ignore(_: DeliveredMessage) -> None:
    """Drop what a stranger put into the queue."""
