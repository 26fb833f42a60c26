"""What tests of this transport stand on: ends that are closed and names that are deleted after each test."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import aiormq
from aiormq.abc import AbstractChannel
from aiormq.exceptions import AMQPError

from prefactor_core.broker.driver import ConsumingEnd, DeadLetterEnd, End, Message, Partition, PublishingEnd
from prefactor_core.exceptions import BrokerError
from prefactor_rabbitmq.broker import RabbitBroker
from prefactor_rabbitmq.connector import steady_clock
from prefactor_rabbitmq.consuming import RabbitConsumingEnd
from prefactor_rabbitmq.dead_letters import RabbitDeadLetterEnd
from prefactor_rabbitmq.partition import RabbitPartition
from prefactor_rabbitmq.publishing import Outlet, RabbitPublishingEnd

T = TypeVar("T")
E = TypeVar("E", bound=End)

_MOST_PARTITIONS = 8


class Rig:
    """Makes brokers under one prefix.

    Args:
        url: The server.
        prefix: Of all names.
    """

    def __init__(self, url: str, prefix: str) -> None:
        self.url = url
        self.prefix = prefix
        self._ends: list[End] = []

    def broker(
        self, *, url: str | None = None, clock: Callable[[], float] = steady_clock, **options: float
    ) -> RabbitBroker:
        given = {"partitions": 2, **options}
        query = "&".join(f"{name}={value}" for name, value in given.items())
        return RabbitBroker(f"{url or self.url}?prefix={self.prefix}&{query}", clock)

    def publishing(self, broker: RabbitBroker | None = None) -> PublishingEnd:
        return self._keep((broker or self.broker()).publishing())

    def consuming(self, broker: RabbitBroker | None = None) -> RabbitConsumingEnd:
        end = self._keep((broker or self.broker()).consuming())
        assert isinstance(end, RabbitConsumingEnd)
        return end

    def dead_letters(self, broker: RabbitBroker | None = None) -> DeadLetterEnd:
        return self._keep((broker or self.broker()).dead_letters())

    async def publish(self, names: Iterable[str], partition: int = 0) -> None:
        """Publish through an end of its own."""
        end = self.broker().publishing()
        try:
            await end.publish(partition, [name.encode() for name in names])
        finally:
            await end.disconnect()

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
        async with self.channel() as channel:
            try:
                await channel.queue_declare(f"{self.prefix}.{name}", passive=True)
            except AMQPError:
                return False
        return True

    async def depth(self, name: str) -> int:
        async with self.channel() as channel:
            declared = await channel.queue_declare(f"{self.prefix}.{name}", passive=True)
        return declared.message_count or 0

    async def delete(self, *names: str) -> None:
        async with self.channel() as channel:
            for name in names:
                await channel.queue_delete(f"{self.prefix}.{name}")

    async def disconnect(self) -> None:
        for end in self._ends:
            await end.disconnect()

    async def close(self) -> None:
        """Leave nothing behind."""
        await self.disconnect()
        await self.delete("partitions", "dead", "workers", "aside", *map(str, range(_MOST_PARTITIONS)))
        for what in ("handover", "trials"):
            await self.delete(*(f"{number}.{what}" for number in range(_MOST_PARTITIONS)))
        async with self.channel() as channel:
            await channel.exchange_delete(f"{self.prefix}.operations")

    def _keep(self, end: E) -> E:
        self._ends.append(end)
        return end


async def until(check: Callable[[], Awaitable[T | None]], what: str, seconds: float = 15.0) -> T:
    """Ask again and again until the answer is true; a broker that is unavailable is no answer."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = await check()
        except BrokerError:
            found = None
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        await asyncio.sleep(0.02)


async def own(end: ConsumingEnd, number: int = 0) -> RabbitPartition:
    """Acquire a partition as soon as it is free."""
    partition = await until(lambda: end.acquire(number, 100), f"partition {number}")
    assert isinstance(partition, RabbitPartition)
    return partition


async def read(partition: Partition, count: int) -> list[Message]:
    """Read until there are as many."""
    messages: list[Message] = []
    deadline = time.monotonic() + 15
    while len(messages) < count:
        messages += await partition.read(count - len(messages), 1 << 20)
        assert time.monotonic() < deadline, f"{len(messages)} of {count} messages came"
    return messages


async def crash_often(rig: Rig, times: int, count: int = 3) -> None:
    """Let owners of partition 0 crash with so many messages in hand."""
    for _ in range(times):
        end = rig.consuming()
        await read(await own(end), count)
        cut(end)


async def first(end: ConsumingEnd) -> tuple[RabbitPartition, list[Message]]:
    """Own partition 0 and read, again if what earlier owners told changes what may be read."""

    async def attempt() -> tuple[RabbitPartition, list[Message]]:
        owner = await own(end)
        return owner, await owner.read(10, 1 << 20)

    return await until(attempt, "messages")


def names(messages: Sequence[Message]) -> list[str]:
    return [message.data.decode() for message in messages]


def cut(end: End) -> None:
    """Cut an end's connection as a crash does; an end made afterwards is another process."""
    if isinstance(end, RabbitConsumingEnd | RabbitDeadLetterEnd):
        connector = end._connector
    else:
        connector = outlet(end)._connector
    assert connector._link is not None
    connector._link._wire.cut()


def outlet(end: End) -> Outlet:
    """Return what an end publishes through."""
    assert isinstance(end, RabbitPublishingEnd)
    return end._outlet
