"""The rig of each test."""

from collections.abc import AsyncIterator

import pytest

from tests.transports.rabbitmq.rig import Rig


@pytest.fixture
async def rig(amqp_url: str, amqp_prefix: str) -> AsyncIterator[Rig]:
    """Brokers on the shared server, under a prefix that is deleted afterwards."""
    rig = Rig(amqp_url, amqp_prefix)
    yield rig
    await rig.close()
