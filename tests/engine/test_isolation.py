"""Isolation: who is handled beside whom, and for how long an attempt is recorded."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from prefactor_core.api.circuit_breaker import CircuitBreaker
from prefactor_core.api.delivery import ApiDelivery
from prefactor_core.broker import reader
from prefactor_core.broker.consumer import Consumer
from prefactor_core.broker.dead_letters import DeadLetters, StoredDeadLetter
from prefactor_core.broker.envelope import Envelope, decode, encode
from prefactor_core.execution.dependents import Dependents
from prefactor_core.execution.retry import RetryPolicy
from prefactor_core.operations import Operation
from prefactor_core.queue.base import Delivery
from prefactor_core.queue.executor import TaskExecutor
from tests.engine.setups import queue_on
from tests.engine.virtual import each, virtual
from tests.support.fake_api import FakeApi, lost_request, status
from tests.support.fake_broker import Entry, FakeBroker, Fault
from tests.support.operations import dice, quality

PARTITIONS = 3


def broker_with(*attempts: int) -> FakeBroker:
    """Return a broker whose partitions are isolated, with two operations in each, begun so often before."""
    broker = FakeBroker(PARTITIONS)
    broker.isolated = set(range(PARTITIONS))
    for number, begun in enumerate(attempts):
        for place in (1, 2):
            broker.put(number, encode(Envelope(f"{number}-{place}", place, quality(f"p{number}", place))))
        entry = broker.logs[number][0]
        assert isinstance(entry, Entry)
        entry.begun = begun
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


@virtual
async def test_first_attempts_go_side_by_side() -> None:
    broker = broker_with(0, 0, 0)
    consumer = Consumer(broker.consuming(), broker.name, dice(1))
    first = await received(consumer, 5)
    assert partitions(first) == {"p0", "p1", "p2"}
    assert len(first) == PARTITIONS, "one of each"
    await consumer.disconnect()


@virtual
async def test_what_was_begun_before_is_alone() -> None:
    broker = broker_with(1, 1, 0)
    consumer = Consumer(broker.consuming(), broker.name, dice(1))
    seen: list[set[str]] = []
    for _ in range(2 * PARTITIONS):
        out = await received(consumer, 5)
        seen.append({f"{one.item.instance_id}:{one.item.payload['name']}" for one in out})
        may_be_poison = [one for one in out if one.item.instance_id in {"p0", "p1"} and _is_first(one)]
        assert not may_be_poison or len(out) == 1, seen
        assert not await consumer.settle(out)
    assert sum(map(len, seen)) == 2 * PARTITIONS, "all had their turn"
    await consumer.disconnect()


def _is_first(delivery: Delivery[Operation]) -> bool:
    return bool(delivery.item.metadata["sequence"] == 1)


# -- how long an attempt is recorded


def recorded(broker: FakeBroker) -> list[int]:
    """Return how many attempts stand at each operation that is left."""
    return [entry.begun for log in broker.logs for entry in log]


@asynccontextmanager
async def worker(broker: FakeBroker, api: FakeApi) -> AsyncIterator[TaskExecutor]:
    """A worker as it is put together, on the fake broker and the fake API."""
    queue = queue_on(broker)
    retry = RetryPolicy(3, base=20.0, rng=dice(1))
    breaker = CircuitBreaker(api.ping, retry, latch=False)
    executor = TaskExecutor(queue, ApiDelivery(api, breaker), 4, retry=retry, dependents=Dependents())
    executor.start()
    yield executor
    await executor.stop(1, drain=False)
    await queue.disconnect()
    assert broker.wrongs == []


async def records(broker: FakeBroker) -> list[StoredDeadLetter]:
    return [record async for record in DeadLetters(broker).list()]


def taking(**settings: object) -> FakeApi:
    api = FakeApi(latency=lambda: 0.05, **settings)  # type: ignore[arg-type]
    api.instances.update({f"p{number}": "active" for number in range(PARTITIONS)})
    return api


@each("begun", [0, 1])
async def test_what_waits_for_the_api_has_no_attempt_recorded(begun: int) -> None:
    api = taking(unavailable=True)
    broker = broker_with(begun, begun, begun)
    async with worker(broker, api):
        await asyncio.sleep(5)  # the first requests have found out by then
        for _ in range(200):
            await asyncio.sleep(0.1)
            assert recorded(broker) == [begun, 0] * PARTITIONS
        api.unavailable = False
        await asyncio.sleep(60)
        assert broker.unsettled == 0


@virtual
async def test_what_waits_for_a_retry_has_no_attempt_recorded() -> None:
    api = taking(faults=lambda request: status(500) if "quality" in request.keys[0] else None)
    broker = broker_with(1)
    async with worker(broker, api):
        await asyncio.sleep(1)
        assert len(api.requests) == 1
        assert recorded(broker) == [1, 0], "that of the owner that crashed"
        api.faults = None
        await asyncio.sleep(60)
        assert broker.unsettled == 0


@virtual
async def test_isolated_operations_are_the_trial_of_a_circuit_that_needs_a_write() -> None:
    """Pings are answered and writes are not, and only isolated operations are there to find that out."""
    api = taking(faults=lambda _: status(503))
    broker = broker_with(1, 1, 1)
    async with worker(broker, api):
        await asyncio.sleep(300)
        api.faults = None
        await asyncio.sleep(120)
        assert broker.unsettled == 0
    assert await records(broker) == []


@each("pace", [20, 100])
async def test_what_has_ended_keeps_no_other_isolated_operation_waiting(pace: int) -> None:
    """Its partition goes on at full speed, and is never empty."""
    api = taking()
    broker = broker_with(1, 1)
    broker.isolated = {1}
    broker.isolated_until[0] = broker.logs[0][0].number
    broker.crashes[0] = 0
    async with worker(broker, api):
        for number in range(10 * pace):
            operation = quality("p0", 10 + number)
            broker.put(0, encode(Envelope(f"more-{number}", 10 + number, operation)))
            await asyncio.sleep(1 / pace)
        assert not broker.logs[1], "the other partition's operations were handled meanwhile"
        await asyncio.sleep(30)


@virtual
async def test_an_attempt_is_recorded_while_it_is_handled() -> None:
    api = taking()
    api.latency = lambda: 5.0
    broker = broker_with(0)
    async with worker(broker, api):
        while not api.requests:
            await asyncio.sleep(0.1)
        assert recorded(broker) == [1, 0]
        await asyncio.sleep(60)


@virtual
async def test_one_that_was_begun_before_is_handled_only_once_a_ping_is_answered() -> None:
    """A request that hangs looks as if it was being handled; a worker killed then was not killed by it."""
    api = taking()
    api.latency = lambda: 300.0
    broker = broker_with(1)
    async with worker(broker, api):
        await asyncio.sleep(100)
        assert api.pings
        assert api.requests == []
        assert recorded(broker) == [1, 0]


@virtual
async def test_an_attempt_that_cannot_be_taken_back_is_not_recorded_twice() -> None:
    api = taking()
    api.script.extend([lost_request(), lost_request()])
    broker = broker_with(1)
    async with worker(broker, api):
        broker.fail("withdraw", *[Fault()] * 20)
        await asyncio.sleep(15)
        assert recorded(broker)[0] <= 2
        await asyncio.sleep(200)
        assert broker.unsettled == 0
    assert await records(broker) == []


@virtual
async def test_what_crashes_those_who_decode_it_is_set_aside_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attempt is recorded before: one more than those that are handled, and then nobody decodes it."""
    decoded: list[bytes] = []

    def noted(data: bytes) -> Envelope:
        decoded.append(data)
        return decode(data)

    monkeypatch.setattr(reader, "decode", noted)

    broker = broker_with(4)
    poison = broker.logs[0][0].data
    async with worker(broker, taking()):
        await asyncio.sleep(10)
        assert broker.unsettled == 0
    assert poison not in decoded
    (record,) = await records(broker)
    assert record.envelope == poison
    assert (record.reason, record.attempts) == ("its workers crashed each time they read it", 4)


@each("begun", [0, 1, 2])
async def test_attempts_that_crashed_earlier_owners_stand_in_the_dead_letter(begun: int) -> None:
    broker = broker_with(begun)
    api = taking(reject=lambda one: (422, "invalid") if one.key == "p0:quality:1" else None)
    async with worker(broker, api):
        await asyncio.sleep(30)
        assert broker.unsettled == 0
    (record,) = await records(broker)
    assert (record.reason.partition(":")[0], record.attempts) == ("rejected", begun + 1)
