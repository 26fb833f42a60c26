"""The contract, for Redis: a server that tests share, a prefix for each."""

import pytest
import redis.asyncio as redis

from prefactor_core.testing import Transport, TransportContract

NOTHING_LISTENS = "redis://127.0.0.1:9"


class TestRedis(TransportContract):
    @pytest.fixture
    def transport(self, redis_url: str, redis_prefix: str) -> Transport:
        async def leftovers() -> list[str]:
            async with redis.Redis.from_url(redis_url) as client:
                keys = [
                    key.decode() async for key in client.scan_iter(match=f"*{redis_prefix}*", count=1_000)
                ]
            return [key.replace(redis_prefix, "prefix") for key in keys]

        return Transport(
            url=f"{redis_url}?prefix={redis_prefix}&lease=1",
            unreachable_url=NOTHING_LISTENS,
            dies_within=1.0,
            leftovers=leftovers,
            keeps={"{prefix}:partitions"},
        )
