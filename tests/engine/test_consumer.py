"""Consuming, in virtual time: fair shares, one owner a partition, in order, and nothing is ever stranded."""

import asyncio
import itertools
import logging
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from prefactor_core.broker import consumer as module
from prefactor_core.broker.consumer import Consumer
from prefactor_core.broker.dead_letters import StoredDeadLetter, decode_dead_letter
from prefactor_core.exceptions import BrokerError, QueueClosedError
from prefactor_core.operations import Operation
from prefactor_core.queue.base import DeadLetter, Delivery
from tests.engine.setups import KILLED, fill, filled, keys, message, queue_on, receive
from tests.engine.virtual import each, virtual
from tests.support.fake_broker import FakeBroker, FakeConsumingEnd, Fault, now
from tests.support.operations import create, dice, key_of, quality

LOGGER = "prefactor_core.broker"
MUCH = 1 << 40


def numbers(deliveries: Sequence[Delivery[Operation]], partition: int | None = None) -> list[int]:
    return numbers_of(keys(deliveries), partition)


def numbers_of(found: Sequence[str], partition: int | None = None) -> list[int]:
    wanted = "p" if partition is None else f"p{partition}:"
    return [int(key.rpartition(":")[2]) for key in found if key.startswith(wanted)]


class Worker:
    """Receives and settles for as long as it runs."""

    def __init__(self, broker: FakeBroker, seed: int = 1) -> None:
        self.end = broker.consuming()
        self.consumer = Consumer(self.end, broker.name, dice(seed))
        self.settled: list[str] = []
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            try:
                deliveries = await self.consumer.receive(100, MUCH)
            except QueueClosedError:
                return
            await asyncio.sleep(0.01)
            refused: Sequence[Delivery[Operation]] | None = None
            while refused is None:
                try:
                    refused = await self.consumer.settle(deliveries)
                except BrokerError:
                    await asyncio.sleep(0.5)
            self.settled += [key_of(one.item) for one in deliveries if one not in refused]

    async def stop(self) -> None:
        self.consumer.close()
        await self._task
        await self.consumer.disconnect()

    async def crash(self) -> None:
        self.end.crash()
        self._task.cancel()
        await asyncio.wait([self._task])
        await self.consumer.disconnect()


@asynccontextmanager
async def consuming(broker: FakeBroker, seed: int = 1) -> AsyncIterator[Consumer]:
    one = Consumer(broker.consuming(), broker.name, dice(seed))
    try:
        yield one
    finally:
        await one.disconnect()
        assert broker.wrongs == []


def end_of(one: Consumer) -> FakeConsumingEnd:
    assert isinstance(one._end, FakeConsumingEnd)
    return one._end


async def nothing_comes(one: Consumer, seconds: float) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await one.receive(100, MUCH)


def check_owners(broker: FakeBroker) -> None:
    assert broker.wrongs == []
    assert all(len(ends) == 1 for ends in broker.owners().values()), "a partition has two owners"


async def until_shares_are(broker: FakeBroker, workers: Sequence[Worker], within: float) -> None:
    """Wait for even shares of all partitions, and see that no partition ever has two owners."""
    deadline = now() + within
    while True:
        check_owners(broker)
        shares = [len(worker.consumer.owned) for worker in workers]
        if len(broker.owners()) == sum(shares) == broker.count and max(shares) - min(shares) <= 1:
            return
        assert now() < deadline, f"after {within} s the shares are {shares}"
        await asyncio.sleep(0.05)


# -- fair shares


@pytest.mark.parametrize("ranks", [True, False])
@pytest.mark.parametrize("partitions", [16, 8])
@virtual
async def test_a_fleet_that_grows_and_shrinks_shares_evenly(partitions: int, *, ranks: bool) -> None:
    broker = FakeBroker(partitions, ranks=ranks)
    workers = [Worker(broker, 1)]
    put = 0

    async def load() -> None:
        nonlocal put
        while True:
            fill(broker, put % partitions, 1, put // partitions)
            put += 1
            await asyncio.sleep(0.02)

    loading = asyncio.create_task(load())
    await until_shares_are(broker, workers, 5)
    workers += [Worker(broker, seed) for seed in (2, 3, 4)]
    await asyncio.sleep(1)
    await until_shares_are(broker, workers, 15)
    leaving, workers = workers[:2], workers[2:]
    await asyncio.gather(*(worker.stop() for worker in leaving))
    await until_shares_are(broker, workers, 15)
    loading.cancel()
    await asyncio.sleep(5)
    await asyncio.gather(*(worker.stop() for worker in workers))
    check_owners(broker)
    assert broker.unsettled == 0
    assert not broker.leases
    assert not broker.members
    settled = [key for worker in [*leaving, *workers] for key in worker.settled]
    assert len(settled) == len(set(settled)) == put, "with nobody crashing each was settled by one"


@pytest.mark.parametrize("ranks", [True, False])
@pytest.mark.parametrize(("partitions", "size"), [(16, 3), (5, 4), (3, 5), (1, 3), (7, 7)])
@virtual
async def test_all_partitions_are_owned_whatever_the_numbers(
    partitions: int, size: int, *, ranks: bool
) -> None:
    broker = FakeBroker(partitions, ranks=ranks)
    workers = [Worker(broker, seed) for seed in range(size)]
    for _ in range(200):
        await asyncio.sleep(0.1)
        check_owners(broker)
    shares = sorted(len(worker.consumer.owned) for worker in workers)
    assert sum(shares) == partitions == len(broker.owners())
    assert shares[-1] <= -(-partitions // size)
    if ranks:
        assert shares[-1] - shares[0] <= 1
    granted = len(broker.grants)
    await asyncio.sleep(60)
    assert len(broker.grants) == granted, "a fleet at rest moves no partition about"
    await asyncio.gather(*(worker.stop() for worker in workers))


@virtual
async def test_what_a_crashed_one_owned_is_taken_over_once_its_leases_ran_out() -> None:
    broker = FakeBroker(8)
    workers = [Worker(broker, seed) for seed in range(2)]
    await until_shares_are(broker, workers, 15)
    for partition in range(8):
        fill(broker, partition, 50)
    await workers[0].crash()
    began = now()
    await until_shares_are(broker, workers[1:], 30)
    assert now() - began > 5, "not before they can have run out"
    await asyncio.sleep(2)
    assert broker.unsettled == 0
    await workers[1].stop()


@virtual
async def test_a_partition_is_given_up_once_what_is_under_way_has_ended() -> None:
    broker = filled(5, 5)
    async with consuming(broker) as one:
        held = await receive(one, 4)
        other = Worker(broker, 2)
        await asyncio.sleep(2)
        leaving = [delivery for delivery in held if delivery.revoked]
        kept = [delivery for delivery in held if not delivery.revoked]
        assert len(one.owned) == 1
        assert not other.consumer.owned, "what was begun is not taken away at once"
        # What has begun is settled, what has not goes back.
        assert await one.settle(leaving[:1] + kept) == []
        await one.release(leaving[1:])
        await asyncio.sleep(2)
        assert len(other.consumer.owned) == 1
        mine = one.owned[0]
        rest = await receive(one, 5 - len(kept))
        assert numbers(kept + rest, mine) == [0, 1, 2, 3, 4]
        assert await one.settle(rest) == []
        await asyncio.sleep(1)
        assert broker.unsettled == 0
        assert numbers_of(other.settled, 1 - mine) == [*range(len(leaving[:1]), 5)]
        await other.stop()


@virtual
async def test_a_partition_whose_deliveries_never_end_is_given_up_after_a_while() -> None:
    broker = filled(5, 5)
    async with consuming(broker) as one:
        held = await receive(one, 10)
        other = Worker(broker, 2)
        await asyncio.sleep(15)
        (given_up,) = other.consumer.owned
        assert numbers_of(other.settled, given_up) == [0, 1, 2, 3, 4]
        refused = await one.settle(held)
        assert numbers(refused, given_up) == numbers(refused) == [0, 1, 2, 3, 4]
        assert broker.unsettled == 0
        await other.stop()


# -- reading ahead


@virtual
async def test_what_is_read_ahead_is_bounded_for_each_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_UNSETTLED_ITEMS", 100)

    broker = FakeBroker(4)
    fill(broker, 0, 1_000)
    async with consuming(broker) as one:
        first = await receive(one, 10)
        await asyncio.sleep(5)
        assert one.waiting == 15, "25 for each of 4 partitions"
        for partition in (1, 2, 3):
            fill(broker, partition, 5)
        await asyncio.sleep(1)
        assert one.waiting == 30, "a long partition does not take the room of others"
        rest = await receive(one, 30)
        assert numbers(first + rest, 0) == [*range(25)]
        await nothing_comes(one, 10)
        assert await one.settle(first) == []
        assert numbers(await receive(one, 10), 0) == [*range(25, 35)]


@virtual
async def test_what_is_read_ahead_is_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_UNSETTLED_BYTES", 100_000)

    broker = FakeBroker(2)
    large = [create("p0", f"p0-{number}", payload={"x": "y" * 20_000}) for number in range(20)]
    broker.put(0, *map(message, large))
    huge = [create("p1", f"p1-{number}", payload={"x": "y" * 200_000}) for number in range(3)]
    broker.put(1, *map(message, huge))
    async with consuming(broker) as one:
        found = await receive(one, 4)
        await asyncio.sleep(5)
        assert one.waiting == 0
        assert [key_of(delivery.item) for delivery in found if delivery.size > 100_000] == ["p1-0:create"]
        assert await one.settle(found) == []
        more = await receive(one, 4)
        assert [key_of(delivery.item) for delivery in more if delivery.size > 100_000] == ["p1-1:create"]


@virtual
async def test_receive_keeps_its_limits() -> None:
    broker = filled(20)
    async with consuming(broker) as one:
        assert numbers(await receive(one, 3)) == [0, 1, 2]
        assert len(await one.receive(100, 1)) == 1
        assert len(await one.receive(100, 400)) == 2
        assert len(await one.receive(100, MUCH)) == 14
        assert await one.depth() == 20


@virtual
async def test_nobody_sleeps_while_something_waits() -> None:
    broker = FakeBroker(1)
    async with consuming(broker) as one:
        receivers = [asyncio.create_task(one.receive(1, MUCH)) for _ in range(4)]
        await asyncio.sleep(3)
        fill(broker, 0, 1)
        await asyncio.sleep(0.1)
        (first,) = [task for task in receivers if task.done()]
        # Two come back at once, and there is one wake-up for it.
        fill(broker, 0, 1, 1)
        await asyncio.sleep(0.1)
        (second,) = [task for task in receivers if task.done() and task is not first]
        await one.release([*first.result(), *second.result()])
        await asyncio.sleep(0.1)
        rest = [task for task in receivers if task not in (first, second)]
        found = [delivery for task in rest for delivery in await task]
        assert numbers(found) == [0, 1]
        # Somebody is woken, and stops waiting.
        ends, stays = (asyncio.create_task(one.receive(1, MUCH)) for _ in range(2))
        await asyncio.sleep(0.1)
        await one.release(found[:1])
        ends.cancel()
        assert await stays == found[:1]
        await asyncio.wait([ends])


async def receive_none(one: Consumer) -> None:
    """Have it begin, and own what is its share."""
    await nothing_comes(one, 2)


# -- losing partitions


@virtual
async def test_what_waits_of_a_lost_partition_is_not_handed_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, LOGGER)
    broker = filled(10, 0)
    async with consuming(broker) as one:
        first = await receive(one, 3)
        await asyncio.sleep(1)
        assert one.waiting == 7
        broker.lose(0)
        await asyncio.sleep(broker.lease_seconds / 4 + 0.1)
        assert all(delivery.revoked for delivery in first)
        again = await receive(one, 10)
        assert numbers(again) == [*range(10)], "from the first unsettled, in order"
        assert all(delivery.maybe_sent for delivery in again)
        assert not any(delivery.revoked for delivery in again)
        assert await one.settle(first) == first
        assert await one.settle(again) == []
        await one.release(first)
        assert broker.unsettled == 0
        await nothing_comes(one, 5)
    assert caplog.messages == [
        "rebalance of fake://broker: lost (its lease ran out) [0], gained [0-1]; owns 2"
    ]


@virtual
async def test_what_waits_is_not_handed_out_from_the_very_moment_of_the_loss() -> None:
    broker = filled(10)
    async with consuming(broker) as one:
        first = await receive(one, 3)
        assert one.waiting == 7
        broker.lose(0)
        assert await one.settle(first) == first, "now it is known"
        await nothing_comes(one, 0.01)
        assert numbers(await receive(one, 10)) == [*range(10)]


@virtual
async def test_a_lost_partition_that_others_own_by_now() -> None:
    broker = filled(10)
    async with consuming(broker, 1) as one, consuming(broker, 2) as other:
        held = await receive(one, 4)
        broker.leases.clear()
        broker.members.clear()
        taken = await receive(other, 10)
        assert numbers(taken) == [*range(10)]
        assert [delivery.maybe_sent for delivery in taken] == [True] * 10
        assert await one.settle(held) == held, "refused at the broker"
        assert await one.settle(held) == held, "and not asked for again"
        assert broker.unsettled == 10
        assert await other.settle(taken[:5]) == []
        assert all(delivery.revoked for delivery in held)
        await one.release(held)
        await asyncio.sleep(1.1)
        assert one.waiting == 0
        assert await other.settle(taken[5:]) == []


@virtual
async def test_dead_letters_are_refused_too() -> None:
    broker = filled(3)
    async with consuming(broker) as one:
        held = await receive(one, 3)
        broker.lose(0)
        all_dead = [(delivery, DeadLetter(delivery.item, "no")) for delivery in held]
        assert await one.dead_letter(all_dead) == held
        assert broker.all_dead == []
        assert broker.unsettled == 3
        again = await receive(one, 3)
        all_dead = [(delivery, DeadLetter(delivery.item, "no", 4, "reply")) for delivery in again]
        assert await one.dead_letter(all_dead) == []
        assert broker.unsettled == 0
        records = [decode_dead_letter(dead.data, 9) for dead in broker.all_dead]
        assert [(one.reason, one.attempts, one.reply, one.partition) for one in records] == [
            ("no", 4, "reply", 0)
        ] * 3


# -- giving back


@virtual
async def test_release_puts_back_at_the_head_in_order() -> None:
    broker = filled(6)
    async with consuming(broker) as one:
        held = await receive(one, 4)
        assert await one.settle(held[:1]) == []
        await one.release(held[1:])
        assert numbers(await receive(one, 5)) == [1, 2, 3, 4, 5]
        assert broker.calls["settle"] == 1


@virtual
async def test_release_forgets_what_was_disposed_of() -> None:
    """A caller that was interrupted while it settled does not know how far it came."""
    broker = filled(2, 2)
    async with consuming(broker) as one:
        held = await receive(one, 4)
        broker.fail("settle", None, Fault())
        with pytest.raises(BrokerError):
            await one.settle(held)
        await one.release(held)
        assert one.waiting == 2
        again = await receive(one, 2)
        assert len({key_of(delivery.item)[:2] for delivery in again}) == 1
        assert await one.settle(again) == []
        assert broker.unsettled == 0


@virtual
async def test_what_is_given_back_at_the_end_is_left_to_the_next_owner() -> None:
    broker = filled(6)
    async with consuming(broker, 1) as one:
        held = await receive(one, 4)
        one.close()
        with pytest.raises(QueueClosedError):
            await one.receive(1, MUCH)
        assert await one.settle(held[:2]) == [], "what was handed out can still be settled"
        await one.release(held[2:])
    async with consuming(broker, 2) as other:
        assert numbers(await receive(other, 4)) == [2, 3, 4, 5]


# -- what cannot be read


@each(
    "faults",
    [
        [],
        [Fault(), Fault()],
        [Fault(after=True)],
        [Fault(error=RuntimeError("driver"))],
        [Fault(after=True, error=KeyError("driver"))],
    ],
)
async def test_what_cannot_be_read_is_set_aside_and_holds_up_nothing(faults: list[Fault]) -> None:
    broker = FakeBroker(1)
    garbage = b"\x80\x04 pickle"
    newer = message(quality("p0", 7)).replace(b'"v":1', b'"v":2')
    fill(broker, 0, 2)
    broker.put(0, garbage)
    fill(broker, 0, 2, 2)
    broker.put(0, newer)
    fill(broker, 0, 2, 4)
    broker.fail("dead_letter", *faults)
    async with consuming(broker) as one:
        held = await receive(one, 6)
        assert numbers(held) == [0, 1, 2, 3, 4, 5], "in order, whatever the driver does"
        assert one.dead_lettered_unread == 2
        assert await one.settle(held) == []
    records = [decode_dead_letter(dead.data, 9) for dead in broker.all_dead]
    found = {(record.envelope, record.reason, record.partition) for record in records}
    assert found == {
        (garbage, "unreadable: not JSON", 0),
        (newer, "unreadable: envelope version 2, this release reads version 1", 0),
    }
    assert broker.unsettled == 0
    assert isinstance(records[0], StoredDeadLetter)


@virtual
async def test_what_cannot_be_read_of_a_partition_that_is_lost_meanwhile() -> None:
    broker = FakeBroker(1)
    broker.put(0, b"garbage")
    fill(broker, 0, 2)
    broker.faults = lambda name: Fault() if name == "dead_letter" else None
    async with consuming(broker) as one:
        await nothing_comes(one, 5)
        broker.lose(0)
        await nothing_comes(one, 30)
        assert one.dead_lettered_unread == 0
        broker.faults = lambda _: None
        assert numbers(await receive(one, 2)) == [0, 1]
        assert one.dead_lettered_unread == 1


# -- one at a time


@virtual
async def test_isolated_partitions_are_handled_one_at_a_time() -> None:
    broker = FakeBroker(2)
    broker.isolated.add(0)
    fill(broker, 0, 3)
    fill(broker, 1, 3)
    async with consuming(broker) as one:
        held = await receive(one, 4)
        assert numbers(held, 0) == [0]
        assert numbers(held, 1) == [0, 1, 2]
        await nothing_comes(one, 5)
        isolated = [delivery for delivery in held if delivery.item.instance_id == "p0"]
        for number in (1, 2):
            assert await one.settle(isolated) == []
            isolated = await receive(one, 1)
            assert numbers(isolated) == [number]
            await nothing_comes(one, 3)
        assert broker.calls["begin"] == 3
        await one.release(isolated)
        assert await receive(one, 1) == isolated, "released, it has not ended"
        assert broker.calls["begin"] == 3


@each("faults", [[], [Fault(), Fault(after=True)], [Fault(error=RuntimeError("driver"))]])
async def test_what_was_begun_too_often_is_set_aside(faults: list[Fault]) -> None:
    broker = FakeBroker(1)
    broker.isolated.add(0)
    fill(broker, 0, 3)
    broker.logs[0][1].begun = 3
    broker.fail("begin", None, *faults)
    async with consuming(broker) as one:
        assert await one.settle(await receive(one, 1)) == []
        (poison,) = await receive(one, 1)
        assert numbers([poison]) == [1]
        assert poison.dead_letter == DeadLetter(poison.item, KILLED, attempts=3)
        await nothing_comes(one, 5)
        await one.release([poison])
        assert await receive(one, 1) == [poison], "released, it is still to be dead-lettered"
        assert await one.dead_letter([(poison, poison.dead_letter)]) == []
        held = await receive(one, 1)
        assert numbers(held) == [2]
        assert held[0].dead_letter is None
        assert await one.settle(held) == []
        assert one.dead_lettered_unread == 0, "it could be read"
    (dead,) = broker.all_dead
    record = decode_dead_letter(dead.data, 9)
    assert (record.reason, record.attempts) == (KILLED, 3)
    assert record.id == "id-p0:quality:1"


# -- settling


@each("after", [True, False])
async def test_settling_that_failed_is_repeated_and_asks_only_for_the_rest(*, after: bool) -> None:
    broker = filled(3, 3)
    async with consuming(broker) as one:
        held = await receive(one, 6)
        broker.fail("settle", None, Fault(after), Fault(after))
        for _ in range(2):
            with pytest.raises(BrokerError):
                await one.settle(held)
        assert await one.settle(held) == []
        assert broker.calls["settle"] == 4
        assert await one.settle(held) == []
        assert broker.calls["settle"] == 4, "nothing is left to ask for"
        assert broker.unsettled == 0


@virtual
async def test_what_was_refused_is_returned_although_others_failed_meanwhile() -> None:
    broker = FakeBroker(2, fences_locally=False)
    fill(broker, 0, 2)
    fill(broker, 1, 2)
    async with consuming(broker) as one:
        held = await receive(one, 4)
        lost = [delivery for delivery in held if delivery.item.instance_id == "p0"]
        broker.lose(0)
        broker.fail("settle", None, Fault())
        held.sort(key=lambda delivery: delivery.item.instance_id or "")
        with pytest.raises(BrokerError):
            await one.settle(held)
        assert await one.settle(held) == lost
        assert broker.calls["settle"] == 3
        assert len(broker.logs[0]) == 2
        assert broker.logs[1] == []


# -- the broker comes and goes


@virtual
async def test_a_short_absence_costs_no_partition(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, LOGGER)
    broker = FakeBroker(4)
    async with consuming(broker) as one:
        await receive_none(one)
        broker.unavailable = True
        await asyncio.sleep(4)
        assert one.owned == [0, 1, 2, 3]
        with pytest.raises(BrokerError):
            await one.depth()
        broker.unavailable = False
        fill(broker, 2, 3)
        held = await receive(one, 3)
        assert await one.settle(held) == []
        assert len(broker.grants) == 4
        await asyncio.sleep(5)
    texts = caplog.messages
    assert ["is unavailable; its partitions wait" in text for text in texts] == [True, False]
    assert "works again after" in texts[1]


@virtual
async def test_a_long_absence_costs_all_of_them_until_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, LOGGER)
    broker = filled(*[5] * 4)
    async with consuming(broker) as one:
        held = await receive(one, 20)
        assert await one.settle([delivery for delivery in held if delivery.item.instance_id == "p3"]) == []
        broker.unavailable = True
        await asyncio.sleep(300)
        assert one.owned == []
        assert all(delivery.revoked for delivery in held)
        broker.unavailable = False
        again = await receive(one, 15)
        for partition in range(3):
            assert numbers(again, partition) == [*range(5)]
        assert await one.settle(again) == []
        assert broker.unsettled == 0
        await asyncio.sleep(5)
    texts = caplog.messages
    assert [re.sub(r"\d{2,}", "N", text) for text in texts] == [
        "fake://broker is unavailable; its partitions wait: no connection to the broker",
        "rebalance of fake://broker: lost (its lease ran out) [0-3]; owns 0",
        "fake://broker works again after N s and N failed attempts",
    ], "however long it lasts"


@virtual
async def test_a_broker_that_is_away_at_the_start() -> None:
    broker = FakeBroker(2)
    broker.unavailable = True
    async with consuming(broker) as one:
        receiving = asyncio.create_task(one.receive(10, MUCH))
        await asyncio.sleep(100)
        assert not receiving.done()
        broker.unavailable = False
        fill(broker, 1, 1)
        async with asyncio.timeout(10):
            assert numbers(await receiving) == [0]


CALLS = ["partitions", "fleet", "acquire", "read", "release"]
ERRORS = [BrokerError("x"), RuntimeError("driver")]


@each("name, after, error", [*itertools.product(CALLS, [True, False], ERRORS)])
async def test_calls_that_fail_are_made_again(name: str, error: Exception, *, after: bool) -> None:
    broker = FakeBroker(3)
    broker.fail(name, *([Fault(after, error)] * 3))
    for partition in range(3):
        fill(broker, partition, 3)
    async with consuming(broker, 1) as one:
        held = await receive(one, 9)
        for partition in range(3):
            assert numbers(held, partition) == [0, 1, 2]
        assert await one.settle(held) == []
    async with consuming(broker, 2) as other:
        for partition in range(3):
            fill(broker, partition, 1, 3)
        assert await other.settle(await receive(other, 3)) == []
    assert broker.unsettled == 0


# -- ends


@virtual
async def test_disconnecting_gives_all_partitions_up_at_once() -> None:
    broker = filled(5, 0, 0, 0)
    async with consuming(broker, 1) as one:
        held = await receive(one, 2)
        receiving = asyncio.create_task(one.receive(100, MUCH))
        await asyncio.sleep(1)
        assert len(await receiving) == 3
        waiting = asyncio.create_task(one.receive(100, MUCH))
        await asyncio.sleep(1)
        began = now()
        await one.disconnect()
        assert now() - began < 1
        with pytest.raises(QueueClosedError):
            await waiting
        assert not broker.leases
        assert not broker.members
        assert one.owned == []
        assert one.waiting == 0
        assert end_of(one).disconnected
        assert all(delivery.revoked for delivery in held)
        assert await one.settle(held) == held
    async with consuming(broker, 2) as other:
        assert numbers(await receive(other, 5, within=1)) == [0, 1, 2, 3, 4]


@each("moment", [0.0, 0.0005, 0.0025, 0.0045, 0.01, 1.0005, 1.5])
async def test_disconnecting_at_any_moment_leaves_nothing_owned(moment: float) -> None:
    broker = FakeBroker(4)
    broker.latency = lambda: 0.002
    fill(broker, 0, 5)
    one = Consumer(broker.consuming(), broker.name, dice(1))
    receiving = asyncio.create_task(one.receive(100, MUCH))
    await asyncio.sleep(moment)
    await one.disconnect()
    await asyncio.gather(receiving, return_exceptions=True)
    assert not broker.leases
    assert not broker.members


@virtual
async def test_disconnecting_from_a_broker_that_is_unavailable() -> None:
    broker = FakeBroker(2)
    async with consuming(broker) as one:
        await receive_none(one)
        broker.unavailable = True


@virtual
async def test_one_that_never_received_can_be_closed() -> None:
    broker = FakeBroker(2)
    one = Consumer(broker.consuming(), broker.name, dice(1))
    await one.disconnect()
    with pytest.raises(QueueClosedError):
        await one.receive(1, 1)
    assert not broker.calls["acquire"]


# -- as a queue of the published interface


@virtual
async def test_get_settles_what_it_hands_out() -> None:
    broker = filled(3)
    queue = queue_on(broker)
    assert key_of(await queue.get()) == "p0:quality:0"
    assert broker.unsettled == 2
    broker.fail("settle", Fault())
    with pytest.raises(BrokerError):
        await queue.get()
    assert key_of(await queue.get()) == "p0:quality:1", "it comes again"
    broker.latency = lambda: 0.5
    getting = asyncio.create_task(queue.get())
    await asyncio.sleep(0.2)
    getting.cancel()
    await asyncio.wait([getting])
    assert key_of(await queue.get()) == "p0:quality:2"
    await queue.disconnect()
    assert broker.unsettled == 0


@virtual
async def test_get_sets_aside_what_is_given_up() -> None:
    broker = FakeBroker(1)
    broker.isolated.add(0)
    fill(broker, 0, 2)
    broker.logs[0][0].begun = 3
    queue = queue_on(broker)
    broker.fail("dead_letter", Fault())
    with pytest.raises(BrokerError):
        await queue.get()
    assert broker.all_dead == []
    assert key_of(await queue.get()) == "p0:quality:1"
    (dead,) = broker.all_dead
    assert decode_dead_letter(dead.data, 9).reason == KILLED
    assert broker.unsettled == 0
    await queue.disconnect()


@virtual
async def test_get_passes_over_what_is_another_ones_by_now() -> None:
    broker = filled(2)
    queue = queue_on(broker)
    assert key_of(await queue.get()) == "p0:quality:0"
    broker.lose(0)
    assert key_of(await queue.get()) == "p0:quality:1"
    assert broker.unsettled == 0
    await queue.disconnect()


# -- standing aside


@virtual
async def test_who_stands_aside_leaves_everything_to_the_others(caplog: pytest.LogCaptureFixture) -> None:
    broker = FakeBroker(8)
    workers = [Worker(broker, 1), Worker(broker, 2)]
    one, other = (worker.consumer for worker in workers)
    await until_shares_are(broker, workers, 30)
    for _ in range(2):
        one.stand_aside("its API token is refused")
    assert one.aside
    began = now()
    while len(other.owned) < 8:
        check_owners(broker)
        await asyncio.sleep(0.05)
    assert now() - began < 5
    assert (one.owned, await workers[1].end.standing_aside()) == ([], 1)
    fill(broker, 3, 10)
    while broker.unsettled:
        await asyncio.sleep(0.05)
    assert (len(workers[1].settled), workers[0].settled) == (10, [])
    await asyncio.sleep(60)  # it says so again and again
    assert await workers[1].end.standing_aside() == 1
    assert one.problem is None
    one.rejoin()
    await until_shares_are(broker, workers, 30)
    assert await workers[1].end.standing_aside() == 0
    one.stand_aside("once more")
    await asyncio.sleep(5)
    for worker in workers:
        await worker.stop()
    assert broker.aside == {}, "one that has ended does not stand aside any more"
    assert broker.wrongs == []
    aside = [record for record in caplog.records if "standing aside" in record.getMessage()]
    assert len(aside) == 2


@virtual
async def test_what_was_handed_out_is_revoked_from_who_stands_aside() -> None:
    broker = filled(5)
    async with consuming(broker, 1) as one, consuming(broker, 2) as other:
        held = await receive(one, 3)
        one.stand_aside("its API token is refused")
        await asyncio.sleep(0.1)
        assert all(delivery.revoked for delivery in held)
        assert numbers(await receive(other, 5)) == [0, 1, 2, 3, 4]
        assert await one.settle(held) == held
        await one.release(held)
        one.rejoin()
        await nothing_comes(one, 10)


@virtual
async def test_a_broker_that_fails_is_told_again_who_stands_aside() -> None:
    broker = filled(1, 0)
    async with consuming(broker) as one:
        await receive(one, 1)
        broker.fail("stand_aside", Fault(), Fault())
        one.stand_aside("its API token is refused")
        await asyncio.sleep(20)
        assert await end_of(one).standing_aside() == 1
        assert one.problem is None


# -- what the log says of rebalances


def rebalances(caplog: pytest.LogCaptureFixture) -> list[str]:
    texts = (record.getMessage() for record in caplog.records)
    return [text for text in texts if "rebalance" in text or "partition" in text]


@virtual
async def test_a_rebalance_that_trickles_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Sixteen are taken; a second worker comes, and gets eight, one by one as what is under way ends."""
    caplog.set_level(logging.INFO, LOGGER)
    broker = filled(*[1] * 16)
    async with consuming(broker, 1) as one:
        held = await receive(one, 16)
        await asyncio.sleep(10)
        assert rebalances(caplog) == ["rebalance of fake://broker: gained [0-15]; owns 16"]
        caplog.clear()
        other = Worker(broker, 2)
        for delivery in held:
            await asyncio.sleep(0.25)
            await one.settle([delivery])
        await asyncio.sleep(10)
        kept, given = one.owned, other.consumer.owned
        assert (len(kept), len(given)) == (8, 8)
        told = rebalances(caplog)
        assert sorted(told) == [
            f"rebalance of fake://broker: gained {ranges(given)}; owns 8",
            f"rebalance of fake://broker: released {ranges(given)}; owns 8",
        ]
        caplog.clear()
        await other.stop()
        await asyncio.sleep(20)
        assert rebalances(caplog) == [f"rebalance of fake://broker: gained {ranges(given)}; owns 16"]


def ranges(numbers: Sequence[int]) -> str:
    """Write numbers as a log line does."""
    found: list[str] = []
    for number in numbers:
        first = found[-1].partition("-")[0] if found and int(found[-1].split("-")[-1]) == number - 1 else None
        if first is None:
            found.append(str(number))
        else:
            found[-1] = f"{first}-{number}"
    return f"[{', '.join(found)}]"


@virtual
async def test_a_rebalance_that_never_ends_is_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    broker = FakeBroker(4, lease=4.0)
    async with consuming(broker) as one:
        await receive_none(one)
        for turn in range(240):
            broker.lose(turn % 4)
            await asyncio.sleep(1)
        assert 3 <= len(rebalances(caplog)) <= 6
        caplog.clear()
        await asyncio.sleep(10)
        await nothing_comes(one, 10)
        assert len(rebalances(caplog)) == 1
        assert rebalances(caplog)[0].endswith("owns 4")


@virtual
async def test_what_was_not_told_yet_is_told_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    broker = FakeBroker(3)
    async with consuming(broker) as one:
        await nothing_comes(one, 0.5)
        assert rebalances(caplog) == []
    assert rebalances(caplog) == ["rebalance of fake://broker: gained [0-2]; owns 3"]
