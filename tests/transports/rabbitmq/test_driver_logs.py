"""What the driver logs of our connections is for those who debug it; of other connections all stays."""

import logging

import aiormq
import pytest

from prefactor_core.exceptions import BrokerError
from prefactor_rabbitmq.connector import steady_clock
from prefactor_rabbitmq.link import Link
from tests.support.ports import free_port


async def test_a_connection_that_cannot_be_made(caplog: pytest.LogCaptureFixture) -> None:
    url = f"amqp://guest:guest@127.0.0.1:{free_port()}/"

    def said() -> int:
        return sum(record.name.startswith("aiormq") for record in caplog.records)

    async def fail() -> None:
        with pytest.raises(BrokerError):
            await Link("the broker", 2.0, 5.0, steady_clock).open(url, "test", 5.0)

    await fail()
    assert said() == 0
    with pytest.raises(aiormq.exceptions.AMQPConnectionError):
        await aiormq.connect(url)
    assert said() == 1, "somebody else's"
    with caplog.at_level(logging.DEBUG, "aiormq.connection"):
        await fail()
    assert said() > 1, "for those who debug it"
