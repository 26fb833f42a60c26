"""A broker of each kind under a prefix of the test's own, tidied up afterwards."""

import asyncio
from collections.abc import AsyncIterator

import aiormq
import pytest

from tests.worker.commands import PARTITIONS


@pytest.fixture(params=["redis", "rabbitmq"])
def transport_url(request: pytest.FixtureRequest) -> str:
    """Nothing is there yet."""
    found: str = request.getfixturevalue(f"{request.param}_transport")
    return found


@pytest.fixture
def redis_transport(redis_url: str, redis_prefix: str) -> str:
    """A Redis without anything of ours."""
    return f"{redis_url}?prefix={redis_prefix}&partitions={PARTITIONS}&lease=30"


@pytest.fixture
async def rabbitmq_transport(amqp_url: str, amqp_prefix: str) -> AsyncIterator[str]:
    """A RabbitMQ without anything of ours."""
    yield f"{amqp_url}?prefix={amqp_prefix}&partitions={PARTITIONS}"
    async with asyncio.timeout(180), aiormq.connect(amqp_url) as connection:
        channel = await connection.channel()
        for name in ("partitions", "dead", "workers", *map(str, range(PARTITIONS))):
            await channel.queue_delete(f"{amqp_prefix}.{name}")
        await channel.exchange_delete(f"{amqp_prefix}.operations")
