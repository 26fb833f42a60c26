"""Brokers of RabbitMQ, and what a stranger sees of the server behind them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiormq
from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelLockedResource, ChannelNotFoundEntity

from prefactor_core.transport import ConsumingEnd, End, PublishingEnd
from prefactor_rabbitmq.broker import RabbitBroker
from prefactor_rabbitmq.confirming import Outgoing
from prefactor_rabbitmq.connector import steady_clock
from prefactor_rabbitmq.consuming import RabbitConsumingEnd
from prefactor_rabbitmq.dead_letters import RabbitDeadLetterEnd
from prefactor_rabbitmq.partition import RabbitPartition
from prefactor_rabbitmq.publishing import Outlet, RabbitPublishingEnd
from tests.transports import rig as shared
from tests.transports.rig import Clock, Rig, until

_QUEUES = ["partitions", "dead", "workers", "aside"]
_QUEUES += [f"{number}{kind}" for number in range(16) for kind in ("", ".handover", ".attempts", ".owner")]


class RabbitRig(Rig[RabbitBroker]):
    """Brokers of one server."""

    attempts_log = "0.attempts"
    further_host = ",127.0.0.1:1"

    def broker(
        self, options: str = "", *, url: str | None = None, clock: Clock | None = None
    ) -> RabbitBroker:
        more = options if "partitions=" in options else f"partitions=2&{options}".rstrip("&")
        return RabbitBroker(f"{url or self.url}?prefix={self.prefix}&{more}", clock or steady_clock)

    def consuming(
        self, options: str = "", *, url: str | None = None, clock: Clock | None = None
    ) -> RabbitConsumingEnd:
        end = super().consuming(options, url=url, clock=clock)
        assert isinstance(end, RabbitConsumingEnd)
        return end

    async def crash(self, owner: ConsumingEnd) -> None:
        cut(owner)

    async def drain(self, partition: int = 0) -> list[bytes]:
        """Take what there is, up to the end."""
        end = self.consuming()
        owned = await own(end, partition)
        drained: list[bytes] = []
        while not drained or await self._wait_for_more(owned):
            messages = await owned.read(1_000, 1 << 20)
            assert messages, f"{len(drained)} came"
            assert not await owned.settle(messages)
            drained += [message.data for message in messages]
        await end.disconnect()
        return drained

    async def _wait_for_more(self, owned: RabbitPartition) -> bool:
        """Return whether there is more; the broker's count of what is ready lags behind."""

        async def clear() -> bool:
            return len(owned.inbox) > 0 or not await self.depth(str(owned.number))

        await until(clear, "messages or none")
        return len(owned.inbox) > 0

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[AbstractChannel]:
        """A channel of a stranger."""
        async with aiormq.connect(self.url) as connection:
            yield await connection.channel()

    async def exists(self, name: str) -> bool:
        return name in await self.counts(name)

    async def depth(self, name: str) -> int:
        return (await self.counts(name))[name]

    async def left(self) -> set[str]:
        return set(await self.counts())

    async def counts(self, *names: str) -> dict[str, int]:
        """Return how many messages are ready in each queue that is there, of those named or of all."""
        names = names or tuple(_QUEUES)
        async with aiormq.connect(self.url) as connection:

            async def count(name: str) -> int | None:
                channel = await connection.channel()
                try:
                    declared = await channel.queue_declare(f"{self.prefix}.{name}", passive=True)
                except ChannelNotFoundEntity:
                    return None
                except ChannelLockedResource:
                    return 0  # it is there, and somebody else's
                return declared.message_count or 0

            found = await asyncio.gather(*map(count, names))
        return {name: ready for name, ready in zip(names, found, strict=True) if ready is not None}

    async def delete(self, *names: str) -> None:
        async with self.channel() as channel:
            for name in names:
                await channel.queue_delete(f"{self.prefix}.{name}")

    async def close(self) -> None:
        """Leave nothing behind."""
        await self.disconnect()
        await self.broker().clear()

    async def store_letters(self, all_dead: Sequence[bytes]) -> PublishingEnd:
        """Store dead letters of partition 0, and return the end that has done so."""
        end = self.publishing("timeout=10")
        await end.partitions()
        queue = f"{self.prefix}.dead"
        await outlet(end).publish(
            [Outgoing("", queue, data, {"partition": 0, "at": place}) for place, data in enumerate(all_dead)]
        )
        return end


async def own(end: ConsumingEnd, number: int = 0) -> RabbitPartition:
    """Acquire a partition as soon as it is free."""
    partition = await shared.own(end, number)
    assert isinstance(partition, RabbitPartition)
    return partition


async def until_left(end: ConsumingEnd, count: int) -> None:
    """Wait until so much is unsettled: the broker does not say when it has settled something."""

    async def settled() -> bool:
        return await end.backlog() == count

    await until(settled, f"{count} to be left")


def cut(end: End) -> None:
    """Cut an end's connection as a crash does; an end made afterwards is another process."""
    holder = end if isinstance(end, RabbitConsumingEnd | RabbitDeadLetterEnd) else outlet(end)
    connector = holder._connector
    assert connector._link is not None
    connector._link._wire.cut()


def outlet(end: End) -> Outlet:
    """Return what an end publishes through."""
    assert isinstance(end, RabbitPublishingEnd)
    return end._outlet
