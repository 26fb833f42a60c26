"""The rig of each test."""

import pytest

from tests.transports.rabbitmq.rig import RabbitRig


@pytest.fixture
def rig(rabbit_rig: RabbitRig) -> RabbitRig:
    """Brokers on the shared server."""
    return rabbit_rig
