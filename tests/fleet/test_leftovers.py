"""After a drain a broker holds nothing of ours but the record of the partitions."""

import asyncio
from pathlib import Path

import pytest

from tests.fleet.scenario import check, published
from tests.support.brokers.rabbitmq_server import RabbitServer
from tests.support.brokers.redis_server import RedisServer
from tests.support.fleet import running_fleet, until


async def drained(url: str, folder: Path) -> None:
    """Publish, have a worker killed in the middle, and drain."""
    async with running_fleet(url, folder) as fleet:
        puts = await published(fleet, await fleet.agent("--instances", "20", "--spans", "10"))
        doomed = await fleet.worker()
        await doomed.kill()
        await fleet.drain()
        check(fleet, puts)


async def test_redis_holds_one_key(redis_server: RedisServer, tmp_path: Path) -> None:
    await drained(f"{redis_server.url}?prefix=left&lease=2", tmp_path)
    assert redis_server.command("KEYS", "*") == ["{left}:partitions"]


async def test_rabbitmq_holds_empty_queues_and_no_others(rabbit_server: RabbitServer, tmp_path: Path) -> None:
    await drained(f"{rabbit_server.url}?prefix=left&heartbeat=2&partitions=4", tmp_path)
    names = sorted([*(f"left.{number}" for number in range(4)), "left.dead", "left.partitions"])

    async def listed() -> bool:  # the broker notices only after a while that a connection has ended
        lines = await asyncio.to_thread(
            rabbit_server.ctl, "list_queues", "--quiet", "--no-table-headers", "name", "messages", "consumers"
        )
        found.append(sorted(line.split() for line in lines.splitlines() if line.startswith("left")))
        return found[-1] == [[name, "0", "0"] for name in names]

    found: list[list[list[str]]] = []
    try:
        await until(listed, 180)
    except AssertionError:
        pytest.fail(f"left behind: {found[-1]}")
