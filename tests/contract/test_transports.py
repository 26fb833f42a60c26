"""The contract, for each transport: servers that tests share, a prefix for each test."""

from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster as ClusterClient

from prefactor_core.testing import QueueContract, Transport, TransportContract
from tests.support.brokers.redis_cluster import RedisCluster
from tests.transports.rabbitmq.rig import RabbitRig

_PATIENCE = 120.0  # seconds: on a busy machine


class TestMemory(QueueContract):
    """What has to do with other processes does not apply to it."""

    @pytest.fixture
    def transport(self) -> Transport:
        return Transport(url="memory://")


def _redis(url: str, prefix: str, leftovers: Callable[[], Awaitable[list[str]]]) -> Transport:
    return Transport(
        url=f"{url}?prefix={prefix}&lease=3",
        unreachable_url=f"{url.partition('://')[0]}://127.0.0.1:9",
        dies_within=3.0,
        leftovers=leftovers,
        keeps={"{prefix}:partitions"},
        patience=_PATIENCE,
    )


async def _keys(client: Redis | ClusterClient, prefix: str) -> list[str]:
    async with client:
        keys = [key.decode() async for key in client.scan_iter(match=f"*{prefix}*", count=1_000)]
    return [key.replace(prefix, "prefix") for key in keys]


class TestRedis(TransportContract):
    @pytest.fixture
    def transport(self, redis_url: str, redis_prefix: str) -> Transport:
        return _redis(redis_url, redis_prefix, lambda: _keys(Redis.from_url(redis_url), redis_prefix))


class TestRedisCluster(TransportContract):
    """Partitions on several masters."""

    @pytest.fixture
    def transport(self, redis_cluster: RedisCluster, redis_prefix: str) -> Transport:
        url = redis_cluster.url.replace("redis+cluster", "redis")
        return _redis(
            redis_cluster.url, redis_prefix, lambda: _keys(ClusterClient.from_url(url), redis_prefix)
        )


class TestRabbitMQ(TransportContract):
    @pytest.fixture
    def transport(self, amqp_url: str, amqp_prefix: str) -> Transport:
        rig = RabbitRig(amqp_url, amqp_prefix)
        queues = {str(number) for number in range(16)}

        async def leftovers() -> list[str]:
            return [
                f"{name} with {count} messages" if count else name
                for name, count in (await rig.counts()).items()
            ]

        return Transport(
            url=f"{amqp_url}?prefix={amqp_prefix}&heartbeat=1",
            unreachable_url="amqp://guest:guest@127.0.0.1:9/",
            dies_within=3.0,
            leftovers=leftovers,
            keeps={"partitions", "workers", "dead", *queues},
            patience=_PATIENCE,
        )
