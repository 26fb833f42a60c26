"""The contract, for a Redis Cluster: partitions on several masters."""

import pytest
from redis.asyncio.cluster import RedisCluster as Client

from prefactor_core.testing import Transport, TransportContract
from tests.support.brokers.redis_cluster import RedisCluster

NOTHING_LISTENS = "redis+cluster://127.0.0.1:9"


class TestRedisCluster(TransportContract):
    @pytest.fixture
    def transport(self, redis_cluster: RedisCluster, redis_prefix: str) -> Transport:
        async def leftovers() -> list[str]:
            async with Client.from_url(redis_cluster.url.replace("redis+cluster", "redis")) as client:
                keys = [
                    key.decode() async for key in client.scan_iter(match=f"*{redis_prefix}*", count=1_000)
                ]
            return [key.replace(redis_prefix, "prefix") for key in keys]

        return Transport(
            url=f"{redis_cluster.url}?prefix={redis_prefix}&lease=1",
            unreachable_url=NOTHING_LISTENS,
            dies_within=1.0,
            leftovers=leftovers,
            keeps={"{prefix}:partitions"},
        )
