"""After a drain a broker holds nothing of ours but the record of the partitions."""

from pathlib import Path

import redis

from tests.support.brokers.rabbitmq_server import RabbitServer
from tests.support.brokers.redis_server import RedisServer
from tests.support.fleet import Fleet, running_fleet


async def drained(fleet: Fleet) -> None:
    """Publish, have a worker killed in the middle, and drain."""
    report = await fleet.report(await fleet.agent("--instances", "20", "--spans", "10"))
    doomed = await fleet.worker()
    await doomed.kill()
    await fleet.drain()
    assert fleet.figures().puts == report["put"]
    assert await fleet.effects() == report["put"]


async def test_redis_holds_one_key(redis_server: RedisServer, tmp_path: Path) -> None:
    async with running_fleet(f"{redis_server.url}?prefix=left&lease=2", tmp_path) as fleet:
        await drained(fleet)
    with redis.Redis.from_url(redis_server.url, decode_responses=True) as client:
        assert list(client.scan_iter()) == ["{left}:partitions"]


async def test_rabbitmq_holds_empty_queues_and_no_others(rabbit_server: RabbitServer, tmp_path: Path) -> None:
    async with running_fleet(f"{rabbit_server.url}?prefix=left&heartbeat=2&partitions=4", tmp_path) as fleet:
        await drained(fleet)
    listed = rabbit_server.ctl(
        "list_queues", "--quiet", "--no-table-headers", "name", "messages", "consumers"
    )
    found = sorted(line.split() for line in listed.splitlines() if line.startswith("left"))
    names = sorted([*(f"left.{number}" for number in range(4)), "left.dead", "left.partitions"])
    assert found == [[name, "0", "0"] for name in names]
