"""What the tests of the fleet share: a fleet round each broker."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.brokers.rabbitmq_server import RabbitServer
from tests.support.brokers.redis_server import RedisServer
from tests.support.fleet import Fleet, running_fleet


@pytest.fixture(params=["redis", "rabbitmq"])
def transport_url(request: pytest.FixtureRequest) -> str:
    """A broker under a prefix of the test's own, whose owners are missed within a few seconds."""
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")  # first: the prefix is cleared in what it finds
        return f"{url}?prefix={request.getfixturevalue('redis_prefix')}&lease=3"
    prefix = request.getfixturevalue("amqp_prefix")
    return f"{request.getfixturevalue('amqp_url')}?prefix={prefix}&heartbeat=2"


@pytest.fixture(params=["redis", "rabbitmq"])
def server(request: pytest.FixtureRequest) -> RedisServer | RabbitServer:
    """A broker of the test's own."""
    found = request.getfixturevalue("redis_server" if request.param == "redis" else "rabbit_server")
    assert isinstance(found, RedisServer | RabbitServer)
    return found


@pytest.fixture
async def fleet(transport_url: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Agents, workers and an emulator round that broker."""
    async with running_fleet(transport_url, tmp_path) as running:
        yield running
