"""Each real broker in a few seconds: publish, hand out, settle, dead-letter, drain."""

import asyncio

import pytest

from prefactor_core import Operation, PrefactorCoreConfig
from prefactor_core.broker.dead_letters import DeadLetters
from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.plugins import create_queue
from prefactor_core.queue.base import DeadLetter, Delivery
from tests.support.operations import key_of, keys_of, life

_SECONDS = 60.0


@pytest.mark.parametrize("broker", ["redis", "amqp"])
async def test_a_broker_delivers_in_order_settles_and_keeps_what_is_dead(
    broker: str, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue(f"{broker}_url")
    url = f"{server}?prefix={request.getfixturevalue(f'{broker}_prefix')}&partitions=2"
    operations = life("smoke", spans=3)
    publisher, consumer = queue_at(url), queue_at(url)
    try:
        for operation in operations:
            await publisher.put(operation)
        assert await publisher.flush(_SECONDS)
        received: list[Delivery[Operation]] = []
        async with asyncio.timeout(_SECONDS):
            while len(received) < len(operations):
                received += await consumer.receive(len(operations), 1 << 20)
        assert [key_of(delivery.item) for delivery in received] == keys_of(operations)
        assert await consumer.depth() == len(operations)
        assert not await consumer.settle(received[:-1])
        assert not await consumer.dead_letter([(received[-1], DeadLetter(operations[-1], "HTTP 422", 1))])
        assert await consumer.depth() == 0
        (record,) = [record async for record in DeadLetters(publisher.broker).list()]
        assert record.reason == "HTTP 422"
    finally:
        for queue in (publisher, consumer):
            await queue.close()
            await queue.disconnect()


def queue_at(url: str) -> BrokerQueue:
    queue = create_queue(url, PrefactorCoreConfig(transport_url=url))
    assert isinstance(queue, BrokerQueue)
    return queue
