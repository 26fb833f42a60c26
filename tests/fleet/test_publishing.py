"""What happens to brokers while agents publish, and what agents notice of it: nothing."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aio_pika
import pytest
import redis

from tests.fleet.scenario import VERSION, backlog, check, client_of, published, stop, takes_effect, url_at
from tests.support.brokers.proxy import Proxy
from tests.support.brokers.rabbitmq_server import RabbitServer
from tests.support.brokers.redis_server import RedisServer
from tests.support.fleet import Fleet, running_fleet, until

PACED = ("--instances", "40", "--spans", "40", "--pace", "0.2")


@dataclass
class Site:
    """A broker of the test's own, and a fleet round it."""

    broker: RedisServer | RabbitServer
    fleet: Fleet
    prefix: str

    async def delete_all(self) -> None:
        """Delete every stream or queue of ours."""
        if isinstance(self.broker, RedisServer):
            await asyncio.to_thread(self.broker.command, "FLUSHALL")
            return
        connection = await aio_pika.connect(self.broker.url)
        async with connection:
            channel = await connection.channel()
            for number in range(16):
                await channel.queue_delete(f"{self.prefix}.{number}")

    async def fill(self) -> None:
        """Leave no memory for what is published."""
        if isinstance(self.broker, RedisServer):
            used = await asyncio.to_thread(self._used)
            await asyncio.to_thread(self.broker.command, "CONFIG", "SET", "maxmemory", str(used + 3_000_000))
        else:
            await asyncio.to_thread(self.broker.memory_alarm, on=True)

    async def relieve(self) -> None:
        """Have memory again; Redis has as soon as it is drained."""
        if isinstance(self.broker, RabbitServer):
            await asyncio.to_thread(self.broker.memory_alarm, on=False)

    def _used(self) -> int:
        with redis.Redis.from_url(self.broker.url) as client:
            found: dict[str, Any] = client.info("memory")
            return int(found["used_memory"])


@pytest.fixture
async def site(server: RedisServer | RabbitServer, tmp_path: Path) -> AsyncIterator[Site]:
    # Of each test its own: what one leaves behind in a server is not the next one's fault.
    prefix = f"test-{uuid.uuid4().hex[:12]}"
    async with running_fleet(url_at(server, prefix), tmp_path) as fleet:
        yield Site(server, fleet, prefix)


async def drained(fleet: Fleet, puts: int) -> None:
    """Everything that was put takes effect once and in order."""
    await fleet.drain()
    check(fleet, puts)


async def more_effects(fleet: Fleet, more: int) -> None:
    """Wait for so many more effects."""
    await takes_effect(fleet, await fleet.effects() + more)


@asynccontextmanager
async def working(fleet: Fleet) -> AsyncIterator[None]:
    """A worker, ready before an agent puts anything, for the length of an ``async with``."""
    worker = await fleet.worker()
    await until(lambda: "gained" in worker.log)
    yield
    await stop(worker)


async def test_connections_reset_swallowed_and_refused(site: Site) -> None:
    async with Proxy.before(site.broker.url) as proxy:
        async with working(site.fleet):
            agent = await site.fleet.agent(*PACED, "--pace", "0.3", url=proxy.url(site.fleet.url))
            await takes_effect(site.fleet, 200)
            for _ in range(3):
                await proxy.reset()
                await more_effects(site.fleet, 50)
            proxy.refuse()
            await proxy.reset()
            await until(lambda: proxy.open_connections == 0)
            await proxy.normal()
            await more_effects(site.fleet, 50)
            puts = await published(site.fleet, agent)
        await drained(site.fleet, puts)


async def test_memory_full_and_then_drained(site: Site) -> None:
    noticed = site.fleet.folder / "noticed"
    load = ("--instances", "20", "--spans", "40", "--bytes", "4000", "--pace", "0.2")
    agent = await site.fleet.agent(*load, "--until", str(noticed))
    await until(lambda: waiting(site.fleet, 50))
    await site.fill()
    await until(lambda: "does not accept operations" in agent.log, 180, "the agent notices, in its log")
    noticed.touch()
    async with working(site.fleet):
        await site.relieve()
        puts = await published(site.fleet, agent)
    await drained(site.fleet, puts)


async def waiting(fleet: Fleet, number: int) -> bool:
    """Whether so many operations wait at the broker."""
    return await backlog(fleet) >= number


async def test_streams_and_queues_deleted(site: Site) -> None:
    """What had been delivered stays so, and what is put afterwards goes through, through both ends."""
    worker = await site.fleet.worker()
    async with client_of(site.fleet, None, "a") as client:
        for round_ in range(3):
            for _ in range(20):
                async with (
                    client.create_agent_instance(agent_version=VERSION) as instance,
                    instance.span("a"),
                ):
                    pass
            assert await client.flush(180)
            await takes_effect(site.fleet, (round_ + 1) * 20 * 5)
            await site.delete_all()
    await stop(worker)
    assert await site.fleet.effects() == 3 * 20 * 5
    assert "ERROR" in worker.log, "operations may have been lost with what was deleted"
