"""Publishing, in virtual time: in order through every failure, out of the agent's way, all accounted for."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from prefactor_core.broker.envelope import Envelope, decode, partition_of
from prefactor_core.broker.publisher import Publisher
from prefactor_core.exceptions import BrokerError, InvalidInputError, QueueClosedError
from prefactor_core.execution.retry import RetryPolicy
from prefactor_core.operations import Operation, OperationType
from prefactor_core.queue.base import Published
from prefactor_core.queue.intake import BufferBounds, BufferPolicy
from tests.engine.setups import queue_on
from tests.engine.virtual import each, virtual
from tests.support.fake_broker import FakeBroker, PublishFault, now
from tests.support.operations import (
    WHEN,
    create,
    dice,
    finish,
    key_of,
    life,
    quality,
    register,
    start,
)

LOGGER = "prefactor_core.broker"


def make(
    broker: FakeBroker, *, items: int = 10_000, size: int = 1 << 26, policy: BufferPolicy = "drop"
) -> Publisher:
    retry = RetryPolicy(base=0.2, cap=5.0, rng=dice(1))
    return Publisher(broker.publishing(), broker.name, BufferBounds(items, size, policy), retry)


@asynccontextmanager
async def publishing(
    broker: FakeBroker, publisher: Publisher | None = None, **bounds: Any
) -> AsyncIterator[tuple[FakeBroker, Publisher]]:
    publisher = publisher or make(broker, **bounds)
    try:
        yield broker, publisher
    finally:
        publisher.close()
        await publisher.disconnect()
        check_account(publisher)
        assert broker.wrongs == []


def check_account(publisher: Publisher) -> None:
    at = publisher.published
    assert at.put == at.confirmed + at.unconfirmed + at.buffered + sum(at.dropped.values())
    assert min(at.confirmed, at.unconfirmed, at.buffered) >= 0
    assert publisher.waiting == at.unconfirmed + at.buffered


def put_at_once(publisher: Publisher, *operations: Operation) -> None:
    """Put without ever suspending."""
    for operation in operations:
        with pytest.raises(StopIteration):
            publisher.put(operation).send(None)


def envelopes(broker: FakeBroker) -> list[list[Envelope]]:
    """What arrived, by partition, repeats included."""
    return [[decode(data) for data in arrived] for arrived in broker.arrived]


def first_occurrences(broker: FakeBroker) -> dict[str | None, list[str]]:
    """By instance: the keys in the order in which they first arrived."""
    found: dict[str | None, list[str]] = {}
    for arrived in envelopes(broker):
        for envelope in {one.id: one for one in reversed(arrived)}.values():
            found.setdefault(envelope.operation.instance_id, [])
        seen: set[str] = set()
        for envelope in arrived:
            if envelope.id not in seen:
                seen.add(envelope.id)
                found[envelope.operation.instance_id].append(key_of(envelope.operation))
    return found


def check_suffixes(broker: FakeBroker) -> None:
    """What arrived twice are whole suffixes: from wherever a repeat begins, nothing is left out."""
    for arrived in envelopes(broker):
        order: dict[str, int] = {}
        previous = -1
        for envelope in arrived:
            position = order.setdefault(envelope.id, len(order))
            assert position <= previous + 1, "something was left out of a repeat"
            previous = position
        assert previous == len(order) - 1, "a repeat was left unfinished"


def instances_of(partition: int, partitions: int, count: int) -> list[str]:
    """Names of instances that all belong to one partition."""
    names = (f"i{number:04}" for number in range(10_000))
    found = [name for name in names if partition_of(name, partitions) == partition]
    return found[:count]


@virtual
async def test_each_envelope_names_the_agent_of_an_instance_that_was_registered_here() -> None:
    """Also of what comes after the instance's end; of another process's instance nothing is known."""
    broker = FakeBroker()
    own = [*life("a"), create("a", "a-late"), register("b", name=None), quality("b"), *life("c")]
    async with publishing(broker) as (_, publisher):
        put_at_once(publisher, *own, quality("elsewhere"))
        assert await publisher.flush(60)
    agents: dict[str | None, set[str | None]] = {}
    for envelope in (one for arrived in envelopes(broker) for one in arrived):
        agents.setdefault(envelope.operation.instance_id, set()).add(envelope.agent)
    assert agents == {"a": {"tester"}, "b": {None}, "c": {"tester"}, "elsewhere": {None}}


# -- out of the agent's way


@each("weather", ["fine", "away", "full", "slow"])
async def test_put_never_suspends(weather: str) -> None:
    broker = FakeBroker()
    broker.unavailable = weather == "away"
    broker.latency = lambda: 4.0 if weather == "slow" else 0.001
    publisher = make(broker, items=10 if weather == "full" else 1_000)
    async with publishing(broker, publisher):
        for turn in range(50):
            put_at_once(publisher, quality("i", turn))
            check_account(publisher)
            if turn % 10 == 9:
                await asyncio.sleep(1)
        if weather == "full":
            put_at_once(publisher, *(quality("i", 50 + turn) for turn in range(50)))
            assert publisher.published.dropped == {"record_quality": 40}


@virtual
async def test_nothing_connects_before_the_first_put() -> None:
    broker = FakeBroker()
    publisher = make(broker)
    assert await publisher.flush(0)
    await asyncio.sleep(10)
    await publisher.disconnect()
    assert not broker.calls


@virtual
async def test_a_small_batch_leaves_within_milliseconds() -> None:
    async with publishing(FakeBroker()) as (_, publisher):
        await publisher.put(quality("i", 0))
        began = now()
        assert await publisher.flush(1)
        assert now() - began < 0.02


# -- order


@virtual
async def test_what_is_put_arrives_in_order_in_large_batches() -> None:
    broker = FakeBroker()
    broker.latency = lambda: 0.02
    operations = [quality(f"i{number % 20:03}", number) for number in range(6_000)]
    async with publishing(broker) as (_, publisher):
        put_at_once(publisher, *operations)
        assert await publisher.flush(60)
        assert publisher.published == Published(6_000, 6_000, 0, 0, {})
    assert sum(map(len, broker.arrived)) == 6_000
    assert len(broker.batches) <= 20
    assert max(count for _, count in broker.batches) == 500
    for instance, keys in first_occurrences(broker).items():
        assert keys == [key_of(one) for one in operations if one.instance_id == instance]


@virtual
async def test_a_batch_is_bounded_by_bytes_and_one_larger_operation_goes_alone() -> None:
    async with publishing(FakeBroker(1)) as (broker, publisher):
        sizes = [300_000, 300_000, 300_000, 300_000, 1_030_000, 20_000, 20_000]
        for number, size in enumerate(sizes):
            put_at_once(publisher, create("i", f"i-{number}", payload={"x": "y" * size}))
        assert await publisher.flush(60)
    assert [count for _, count in broker.batches] == [3, 1, 1, 2]


@pytest.mark.parametrize("first", [0, 20, 40])
@each("number", range(20))
async def test_order_through_failures_at_random(first: int, number: int) -> None:
    """Partial confirmations, lost ones, an absent and a slow broker; and the account at every moment."""
    rng = dice(seed := first + number)
    broker = FakeBroker(rng.choice([1, 3]))
    publisher = make(broker, items=rng.choice([30, 10_000]))
    waiting = [list(reversed(life(f"i{number:03}", 8))) for number in range(12)]
    put: list[Operation] = []

    def latency() -> float:
        check_account(publisher)
        return rng.choice([0.001, 0.05, 1.0, 6.0])

    def fault(_: int, count: int) -> PublishFault | None:
        if rng.random() < 0.5:
            return None
        confirmed = rng.randint(0, count)
        foreign = RuntimeError("driver") if rng.random() < 0.2 else None
        return PublishFault(confirmed, rng.randint(confirmed, count), foreign)

    broker.latency = latency
    broker.publish_faults = fault
    async with publishing(broker, publisher):
        while waiting:
            one = rng.choice(waiting)
            dropped = sum(publisher.published.dropped.values())
            put_at_once(publisher, operation := one.pop())
            if sum(publisher.published.dropped.values()) == dropped:
                put.append(operation)
            check_account(publisher)
            if not one:
                waiting.remove(one)
            if rng.random() < 0.2:
                await asyncio.sleep(rng.uniform(0, 3))
            broker.unavailable = rng.random() < 0.1
        broker.unavailable = False
        broker.publish_faults = lambda *_: None
        assert await publisher.flush(600), f"seed {seed}"
        assert publisher.published.confirmed == len(put)
    check_suffixes(broker)
    arrived = first_occurrences(broker)
    assert sum(map(len, arrived.values())) == len(put)
    for instance, keys in arrived.items():
        assert keys == [key_of(one) for one in put if one.instance_id == instance], f"seed {seed}"


@virtual
async def test_a_failed_batch_goes_again_from_its_first_unconfirmed_operation() -> None:
    async with publishing(FakeBroker(1)) as (broker, publisher):
        broker.publish_script.extend([PublishFault(2, 4), PublishFault(0, 8), PublishFault(1, 1)])
        put_at_once(publisher, *(quality("i", number) for number in range(8)))
        assert await publisher.flush(60)
    arrived = [one.operation.idempotency_key or "" for one in envelopes(broker)[0]]
    numbers = [int(key.rpartition(":")[2]) for key in arrived]
    assert numbers == [0, 1, 2, 3, *range(2, 8), 2, *range(3, 8)]
    check_suffixes(broker)


@each("confirmed", [3, 99])
async def test_a_batch_that_fails_with_all_of_it_confirmed_is_no_outage_that_lasts(
    confirmed: int, caplog: pytest.LogCaptureFixture
) -> None:
    """And a driver may say that it has confirmed more than it was given."""
    caplog.clear()
    caplog.set_level(logging.WARNING, LOGGER)
    async with publishing(FakeBroker(1)) as (broker, publisher):
        broker.publish_script.append(PublishFault(confirmed, 3))
        put_at_once(publisher, *(quality("i", number) for number in range(3)))
        assert await publisher.flush(60)
        assert publisher.published == Published(3, 3, 0, 0, {})
        await asyncio.sleep(60)
        assert not broker.publish_script, "it failed"
        assert "works again after 0 s" in caplog.text


@virtual
async def test_partitions_in_trouble_hold_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, LOGGER)
    broker = FakeBroker(6)
    bad = [instances_of(number, 6, 1)[0] for number in range(5)]
    (good,) = instances_of(5, 6, 1)
    broker.publish_faults = lambda partition, _: PublishFault() if partition < 5 else None
    async with publishing(broker) as (_, publisher):
        for number in range(20):
            put_at_once(publisher, *(quality(instance, number) for instance in [*bad, good]))
            await asyncio.sleep(1)
        assert len(broker.arrived[5]) == 20
        assert (publisher.published.confirmed, publisher.waiting) == (20, 100)
        broker.publish_faults = lambda *_: None
        assert await publisher.flush(10)
    assert len(caplog.records) == 2, "one outage, although some of it went well"


# -- an absent broker


@virtual
async def test_a_broker_that_is_away_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, LOGGER)
    async with publishing(FakeBroker()) as (broker, publisher):
        broker.unavailable = True
        for number in range(100):
            put_at_once(publisher, quality(f"i{number % 7}", number))
            await asyncio.sleep(3)
        assert publisher.published == Published(100, 0, 0, 100, {}), "never sent, so not unconfirmed"
        assert not await publisher.flush(10)
        broker.unavailable = False
        assert await publisher.flush(10)
        assert publisher.published == Published(100, 100, 0, 0, {})
    for keys in first_occurrences(broker).values():
        assert keys == sorted(keys, key=lambda key: int(key.rpartition(":")[2]))
    texts = caplog.messages
    assert len(texts) == 2
    assert "does not accept operations; they stay in the buffer" in texts[0]
    assert "works again" in texts[1]


@virtual
async def test_waits_between_tries_grow_up_to_their_cap() -> None:
    async with publishing(FakeBroker(1)) as (broker, publisher):
        broker.publish_faults = lambda *_: PublishFault()
        put_at_once(publisher, quality("i", 0))
        await asyncio.sleep(600)
        tries = broker.calls["publish"]
        assert 600 / 5 < tries < 600
        broker.publish_faults = lambda *_: None
        assert await publisher.flush(5.1)


@pytest.mark.parametrize("error", [RuntimeError("driver"), KeyError("x"), OSError(), ValueError("y")])
@virtual
async def test_a_driver_that_raises_what_it_should_not_strands_nothing(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, LOGGER)
    broker = FakeBroker(2)
    attempts = 0

    async def partitions() -> int:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise error
        return 2

    publisher = make(broker)
    publisher._end.partitions = partitions  # type: ignore[method-assign]
    broker.publish_script.extend([PublishFault(0, 1, error)] * 4)
    async with publishing(broker, publisher):
        put_at_once(publisher, *(quality(f"i{number}", 0) for number in range(30)))
        assert await publisher.flush(120)
    assert sum(map(len, first_occurrences(broker).values())) == 30
    traced = [record for record in caplog.records if record.exc_info]
    assert len(traced) == (not isinstance(error, OSError)), "a mistake once, trouble in words never"
    assert len(caplog.records) == 2, "the beginning and the end"


# -- ends


@virtual
async def test_a_publish_that_is_interrupted_stays_unconfirmed() -> None:
    broker = FakeBroker(1)
    publisher = make(broker)
    put_at_once(publisher, quality("i", 0))
    assert await publisher.flush(1)
    broker.latency = lambda: 3.0
    put_at_once(publisher, *(quality("i", number) for number in range(1, 6)))
    await asyncio.sleep(4)
    assert len(broker.arrived[0]) == 6, "they have arrived, and nobody knows"
    put_at_once(publisher, *(quality("i", number) for number in range(6, 9)))
    assert publisher.published == Published(9, 1, 5, 3, {})
    await publisher.disconnect()
    assert publisher.published == Published(9, 1, 5, 3, {})
    check_account(publisher)
    with pytest.raises(QueueClosedError):
        await publisher.put(quality("i", 9))
    assert publisher.published.put == 9
    assert not await publisher.flush(0)


@virtual
async def test_nothing_is_published_once_it_disconnects() -> None:
    """Not by a sort that lingered on beside a flush, nor by a flush that comes later."""
    broker = FakeBroker(1)
    publisher = make(broker)
    put_at_once(publisher, quality("i", 0))
    assert await publisher.flush(1)
    await asyncio.sleep(1)
    put_at_once(publisher, quality("i", 1))
    assert await publisher.flush(1), "without lingering"
    put_at_once(publisher, quality("i", 2))
    await publisher.disconnect()
    await asyncio.sleep(1)
    assert not await publisher.flush(1)
    await asyncio.sleep(1)
    assert broker.calls["publish"] == 2
    assert publisher.published == Published(3, 2, 0, 1, {})
    check_account(publisher)


@virtual
async def test_what_was_taken_before_the_close_is_still_published() -> None:
    broker = FakeBroker()
    broker.unavailable = True
    publisher = make(broker)
    put_at_once(publisher, *life("i", 3))
    await asyncio.sleep(30)
    publisher.close()
    with pytest.raises(QueueClosedError):
        await publisher.put(quality("i", 0))
    broker.unavailable = False
    assert await publisher.flush(10)
    await publisher.disconnect()
    assert publisher.published == Published(9, 9, 0, 0, {})
    assert sum(map(len, broker.arrived)) == 9


@each("moment", [0.0, 0.001, 0.006, 0.0065, 0.5])
async def test_disconnecting_at_any_moment_leaves_a_right_account(moment: float) -> None:
    broker = FakeBroker()
    publisher = make(broker)
    put_at_once(publisher, *(one for number in range(20) for one in life(f"i{number}", 2)))
    await asyncio.sleep(moment)
    await publisher.disconnect()
    await publisher.disconnect()
    check_account(publisher)
    arrived = sum(map(len, broker.arrived))
    at = publisher.published
    assert at.confirmed <= arrived <= at.confirmed + at.unconfirmed


# -- flush


@virtual
async def test_flush_says_whether_everything_put_so_far_is_confirmed() -> None:
    async with publishing(FakeBroker()) as (broker, publisher):
        broker.latency = lambda: 0.5
        assert await publisher.flush(0)
        put_at_once(publisher, quality("a", 0))
        assert not await publisher.flush(0)
        began = now()
        assert not await publisher.flush(0.9)
        assert now() - began == pytest.approx(0.9)
        waiting = [asyncio.create_task(publisher.flush(100)) for _ in range(3)]
        assert await asyncio.gather(*waiting) == [True] * 3
        assert now() - began == pytest.approx(2.0)
        assert not publisher._buffer.changes


@virtual
async def test_flush_ends_under_constant_load() -> None:
    """What is put after the call is not waited for."""
    broker = FakeBroker(2)
    broker.latency = lambda: 0.3

    async def agent() -> None:
        for number in range(100_000):
            put_at_once(publisher, quality(f"i{number % 5}", number))
            await asyncio.sleep(0.01)

    async with publishing(broker) as (_, publisher):
        load = asyncio.create_task(agent())
        await asyncio.sleep(5)
        for _ in range(5):
            put = publisher.published.put
            began = now()
            assert await publisher.flush(3)
            assert now() - began < 1.5
            assert publisher.published.confirmed >= put
            assert publisher.waiting > 0
        load.cancel()


@virtual
async def test_a_cancelled_flush_leaves_nothing_behind() -> None:
    async with publishing(FakeBroker()) as (broker, publisher):
        broker.unavailable = True
        put_at_once(publisher, quality("i", 0))
        flush = asyncio.create_task(publisher.flush(100))
        await asyncio.sleep(1)
        flush.cancel()
        await asyncio.wait([flush])
        assert not publisher._buffer.changes


# -- a full buffer


@virtual
async def test_a_buffer_full_of_bytes() -> None:
    async with publishing(FakeBroker(1), size=100_000) as (broker, publisher):
        broker.unavailable = True
        put_at_once(publisher, *(create("i", f"i-{n}", payload={"x": "y" * 9_000}) for n in range(50)))
        assert publisher._buffer.intake.bytes <= 100_000
        assert publisher.published.dropped == {"create_span": 50 - publisher.waiting}
        broker.unavailable = False
        assert await publisher.flush(30)
        assert publisher._buffer.intake.bytes == publisher._buffer.intake.items == 0


# -- a buffer that makes callers wait


@virtual
async def test_block_waits_for_room_and_is_woken_by_confirmations() -> None:
    async with publishing(FakeBroker(1), items=3, policy="block") as (broker, publisher):
        broker.unavailable = True
        put_at_once(publisher, *(quality("i", number) for number in range(3)))
        waiting = [asyncio.create_task(publisher.put(quality("i", 3 + number))) for number in range(6)]
        await asyncio.sleep(100)
        assert not any(task.done() for task in waiting)
        assert publisher.published == Published(3, 0, 0, 3, {})
        broker.unavailable = False
        await asyncio.gather(*waiting)
        assert await publisher.flush(30)
        assert publisher.published == Published(9, 9, 0, 0, {})
        assert not publisher._buffer.changes
    arrived = [key_of(one.operation) for one in envelopes(broker)[0]]
    assert arrived == [f"i:quality:{number}" for number in range(9)]


@virtual
async def test_block_never_holds_more_than_its_bounds() -> None:
    rng = dice(3)
    broker = FakeBroker(2)
    publisher = make(broker, items=5, size=4_000, policy="block")

    def latency() -> float:
        assert publisher._buffer.intake.items <= 5
        assert publisher._buffer.intake.bytes <= 4_000 or publisher._buffer.intake.items == 1
        check_account(publisher)
        return rng.uniform(0, 0.2)

    broker.latency = latency

    async def agent(name: str) -> None:
        for number in range(30):
            size = rng.choice([10, 500, 6_000])
            await publisher.put(create(name, f"{name}-{number}", payload={"x": "y" * size}))

    async with publishing(broker, publisher):
        await asyncio.gather(*(agent(f"i{number}") for number in range(6)))
        assert await publisher.flush(60)
        assert publisher.published == Published(180, 180, 0, 0, {})
    for instance, keys in first_occurrences(broker).items():
        assert keys == [f"{instance}-{number}:create" for number in range(30)]


@virtual
async def test_close_wakes_those_that_wait_for_room() -> None:
    broker = FakeBroker(1)
    broker.unavailable = True
    publisher = make(broker, items=1, policy="block")
    put_at_once(publisher, quality("i", 0))
    waiting = [asyncio.create_task(publisher.put(quality("i", number))) for number in range(1, 4)]
    await asyncio.sleep(5)
    publisher.close()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [QueueClosedError] * 3
    await publisher.disconnect()
    assert publisher.published == Published(1, 0, 0, 1, {}), "what was refused was not put"
    assert not publisher._buffer.changes


@virtual
async def test_a_caller_that_stops_waiting_for_room_takes_nobodys_turn() -> None:
    async with publishing(FakeBroker(1), items=1, policy="block") as (broker, publisher):
        broker.unavailable = True
        put_at_once(publisher, quality("i", 0))
        first, second = (asyncio.create_task(publisher.put(quality("i", n))) for n in (1, 2))
        await asyncio.sleep(1)
        first.cancel()
        await asyncio.wait([first])
        broker.unavailable = False
        await second
        assert await publisher.flush(30)
        assert publisher.published.put == 2


# -- what an envelope says


@virtual
async def test_the_sdk_header_of_the_moment_at_which_a_put_leaves() -> None:
    broker = FakeBroker(1)
    headers = ["core@1", "langchain@2 core@1"]
    async with publishing(broker) as (_, publisher):
        put_at_once(publisher, quality("i", 0))
        await asyncio.sleep(0.01)
        publisher.sdk_header = lambda: headers[0]
        put_at_once(publisher, quality("i", 1))
        await asyncio.sleep(0.01)
        headers.pop(0)
        put_at_once(publisher, quality("i", 2))
        assert await publisher.flush(5)
    assert [one.sdk_header for one in envelopes(broker)[0]] == ["", "core@1", "langchain@2 core@1"]


@virtual
async def test_each_instance_has_a_sequence_from_one() -> None:
    broker = FakeBroker(2)
    broker.publish_script.append(PublishFault(0, 2))
    nobodys = Operation(OperationType.RECORD_QUALITY, {"name": "n"}, WHEN, "nobody's")
    async with publishing(broker) as (_, publisher):
        for one, other in zip(life("a", 3), life("b", 3), strict=True):
            put_at_once(publisher, one, other, nobodys)
        assert await publisher.flush(30)
    ids: dict[str, tuple[str, int]] = {}
    sequences: dict[str | None, list[int]] = {}
    for envelope in (envelope for arrived in envelopes(broker) for envelope in arrived):
        known = ids.setdefault(envelope.id, (key_of(envelope.operation), envelope.sequence))
        assert known == (key_of(envelope.operation), envelope.sequence), "a repeat is the same"
    for key, sequence in ids.values():
        sequences.setdefault(key[0], []).append(sequence)
    assert sequences == {"a": [*range(1, 10)], "b": [*range(1, 10)], "n": [1] * 9}


@virtual
async def test_two_producers_have_ids_of_their_own() -> None:
    broker = FakeBroker(1)
    async with publishing(broker) as (_, one), publishing(broker) as (_, other):
        put_at_once(one, quality("i", 0))
        put_at_once(other, quality("i", 0))
        assert await one.flush(5)
        assert await other.flush(5)
    first, second = envelopes(broker)[0]
    assert first.id != second.id


# -- as a queue


@virtual
async def test_what_no_broker_can_hold_is_refused_at_the_call() -> None:
    """Later nobody would be there to tell, and the whole partition would wait behind it."""
    broker = FakeBroker(2)
    queue = queue_on(broker)
    kind = OperationType.RECORD_QUALITY
    fine = {"instance_id": "i", "name": "n"}
    with pytest.raises(InvalidInputError, match="holds operations only"):
        await queue.put("text")  # type: ignore[arg-type]
    for bad in (
        Operation(kind, {"instance_id": 5}, WHEN, "k"),
        Operation(kind, {"instance_id": {"a": 1}}, WHEN, "k"),
        Operation(kind, {**fine, "parent_span_id": ["x"]}, WHEN, "k"),
        Operation(kind, fine, WHEN, ""),
        Operation(kind, fine, WHEN, "k" * 65),
        Operation(kind, fine, WHEN, "\ud800"),
        Operation(kind, fine, WHEN, "a\r\nb"),
        Operation(kind, {**fine, "instance_id": "a\x1b[2J"}, WHEN, "k"),
        Operation(kind, {f"name{number}": "\x01" * 1_000 for number in range(900)}, WHEN, "k"),
        Operation(kind, {**fine, "\ud800": "x"}, WHEN, "k"),
    ):
        with pytest.raises(InvalidInputError):
            await queue.put(bad)
    assert queue.published == Published()
    await queue.put(Operation(kind, fine, WHEN, "k" * 64))
    await queue.put(Operation(kind, {}, WHEN))
    assert await queue.flush(5)
    await queue.disconnect()
    assert queue.published == Published(2, 2, 0, 0, {})


@virtual
async def test_a_queue_says_what_it_is() -> None:
    broker = FakeBroker()
    dropping = queue_on(broker)
    assert not dropping.local
    dropping.introduce(lambda: "agent@1")
    with pytest.raises(StopIteration):
        dropping.put(register("i")).send(None)
    await dropping.put(start("i"))
    await dropping.put(finish("i"))
    assert dropping.size() == 3
    assert await dropping.discard() == 0
    assert await dropping.flush(5)
    assert dropping.size() == 0
    assert await dropping.depth() == 3
    assert {one.sdk_header for arrived in envelopes(broker) for one in arrived} == {"agent@1"}
    broker.unavailable = True
    with pytest.raises(BrokerError):
        await dropping.depth()
    await dropping.close()
    assert dropping.closed
    await dropping.close()
    with pytest.raises(QueueClosedError):
        await dropping.put(register("i"))
    await dropping.disconnect()
