"""Each real broker in a few seconds: publish, hand out, settle, dead-letter, drain."""

import pytest

from prefactor_core.testing import Transport
from prefactor_core.testing.dead_letters import listed
from prefactor_core.testing.operations import keys_of, life
from prefactor_core.testing.receiving import items, receive
from prefactor_core.transport import DeadLetter


@pytest.mark.parametrize("broker", ["redis", "amqp"])
async def test_a_broker_delivers_in_order_settles_and_keeps_what_is_dead(
    broker: str, request: pytest.FixtureRequest
) -> None:
    server, prefix = (request.getfixturevalue(f"{broker}_{name}") for name in ("url", "prefix"))
    transport = Transport(url=f"{server}?prefix={prefix}&partitions=2", patience=60.0)
    operations = life("smoke", spans=3)
    await transport.put(*operations)
    async with transport.shared() as consumer:
        received = await receive(consumer, len(operations), transport.patience)
        assert keys_of(items(received)) == keys_of(operations)
        assert await consumer.depth() == len(operations)
        assert not await consumer.settle(received[:-1])
        assert not await consumer.dead_letter([(received[-1], DeadLetter(operations[-1], "HTTP 422", 1))])
        assert await consumer.depth() == 0
        (record,) = await listed(consumer)
        assert record.reason == "HTTP 422"
