"""The rigs of both transports, by one name each, and one after the other."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from prefactor_rabbitmq import partition as rabbit_partition
from prefactor_rabbitmq.broker import RabbitBroker
from prefactor_redis.broker import RedisBroker
from tests.support.brokers.rabbitmq_server import RabbitServer
from tests.support.brokers.redis_server import RedisServer
from tests.transports.rabbitmq.rig import RabbitRig
from tests.transports.redis.rig import RedisRig
from tests.transports.rig import Rig


@pytest.fixture
async def redis_rig(redis_url: str, redis_prefix: str) -> AsyncIterator[RedisRig]:
    """Brokers on the shared Redis, under a prefix that is deleted afterwards."""
    rig = RedisRig(redis_url, redis_prefix)
    yield rig
    await rig.disconnect()


@pytest.fixture
async def own_redis(redis_server: RedisServer, redis_prefix: str) -> AsyncIterator[RedisRig]:
    """Brokers on a Redis of this test alone, which it may break."""
    rig = RedisRig(redis_server.url, redis_prefix)
    yield rig
    await rig.disconnect()


@pytest.fixture
async def rabbit_rig(amqp_url: str, amqp_prefix: str) -> AsyncIterator[RabbitRig]:
    """Brokers on the shared RabbitMQ, under a prefix that is deleted afterwards."""
    rig = RabbitRig(amqp_url, amqp_prefix)
    yield rig
    await rig.close()


@pytest.fixture
async def own_rabbit(rabbit_server: RabbitServer, amqp_prefix: str) -> AsyncIterator[RabbitRig]:
    """Brokers on a RabbitMQ that may be broken."""
    rig = RabbitRig(rabbit_server.url, amqp_prefix)
    yield rig
    await asyncio.to_thread(rabbit_server.heal)
    await rig.disconnect()


@pytest.fixture
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have readings of RabbitMQ that find nothing end soon."""
    monkeypatch.setattr(rabbit_partition, "READ_SECONDS", 0.3)


@pytest.fixture(params=["redis", "rabbit"])
def rig(request: pytest.FixtureRequest) -> Rig[RedisBroker] | Rig[RabbitBroker]:
    """The rig of each transport in turn."""
    found: Rig[RedisBroker] | Rig[RabbitBroker] = request.getfixturevalue(f"{request.param}_rig")
    return found
