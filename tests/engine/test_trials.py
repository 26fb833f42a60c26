"""Careful partitions of one process: first trials side by side, and whoever was begun before alone."""

import asyncio

from prefactor_core.broker.consumer import Consumer
from prefactor_core.broker.envelope import Envelope, encode
from prefactor_core.operations import Operation
from prefactor_core.queue.base import Delivery
from tests.support.fake_broker import Entry, FakeBroker
from tests.support.operations import dice, quality
from tests.support.virtual_time import run_virtual

PARTITIONS = 3


def broker_with(*trials: int) -> FakeBroker:
    """Return a broker whose partitions are careful, with two operations in each, begun so often before."""
    broker = FakeBroker(PARTITIONS)
    broker.careful = set(range(PARTITIONS))
    for number, begun in enumerate(trials):
        for place in (1, 2):
            broker.put(number, encode(Envelope(f"{number}-{place}", place, quality(f"p{number}", place))))
        entry = broker.logs[number][0]
        assert isinstance(entry, Entry)
        entry.trials = begun
    return broker


def partitions(deliveries: list[Delivery[Operation]]) -> set[str]:
    return {str(delivery.item.instance_id) for delivery in deliveries}


async def received(consumer: Consumer, seconds: float) -> list[Delivery[Operation]]:
    """Return everything that is handed out within so many seconds."""
    found: list[Delivery[Operation]] = []
    try:
        async with asyncio.timeout(seconds):
            while True:
                found += await consumer.receive(10, 1 << 20)
    except TimeoutError:
        return found


def test_first_trials_go_side_by_side() -> None:
    async def program() -> None:
        broker = broker_with(0, 0, 0)
        consumer = Consumer(broker.consuming(), broker.name, dice(1))
        first = await received(consumer, 5)
        assert partitions(first) == {"p0", "p1", "p2"}
        assert len(first) == PARTITIONS, "one of each"
        await consumer.disconnect()

    run_virtual(program())


def test_whoever_was_begun_before_is_alone() -> None:
    async def program() -> None:
        broker = broker_with(1, 1, 0)
        consumer = Consumer(broker.consuming(), broker.name, dice(1))
        seen: list[set[str]] = []
        for _ in range(2 * PARTITIONS):
            out = await received(consumer, 5)
            seen.append({f"{one.item.instance_id}:{one.item.payload['name']}" for one in out})
            suspects = [one for one in out if one.item.instance_id in {"p0", "p1"} and _is_first(one)]
            assert not suspects or len(out) == 1, seen
            assert not await consumer.settle(out)
        assert sum(map(len, seen)) == 2 * PARTITIONS, "all had their turn"
        await consumer.disconnect()

    run_virtual(program())


def _is_first(delivery: Delivery[Operation]) -> bool:
    return bool(delivery.item.metadata["sequence"] == 1)
