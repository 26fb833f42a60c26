"""What is Redis's own: leases, fences, which crashes count, entries of others, answers that nobody takes."""

import asyncio

import pytest

from prefactor_core.transport import BrokerError, Lease
from prefactor_redis import dead_letters
from tests.transports.redis.rig import RedisRig
from tests.transports.rig import eventually, is_held, is_isolated, names, own, read


class Stopwatch:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_lease_is_over_before_the_broker_ends_it() -> None:
    clock = Stopwatch()
    lease = Lease(10, asked_at=0, clock=clock)
    held: list[bool] = []
    for asked_at, now in ((None, 7.9), (5, 12.9), (1, 12.9), (None, 13.0), (13, 5)):
        if asked_at is not None:  # an answer that comes late shortens nothing
            lease.renewed(asked_at=asked_at)
        clock.now = now
        held.append(lease.held)
    assert held == [True, True, True, False, False], "it is over at 13.0, and never again held"


async def test_an_owner_whose_time_is_up_does_nothing_more(rig: RedisRig) -> None:
    clock = Stopwatch()
    consumer = rig.consuming(clock=clock)
    await consumer.partitions()
    await rig.publish("12")
    partition = await own(consumer)
    found = await read(partition, 1)
    clock.now = 12.0  # of 15, of which a part is left for safety
    assert not is_held(partition)
    assert await partition.settle(found) == found
    assert await partition.dead_letter([(found[0], b"record")]) == found
    with pytest.raises(BrokerError, match="not owned"):
        await partition.read(1, 100)
    clock.now = 0.0
    assert not partition.held
    assert await consumer.backlog() == 2


async def test_a_past_owner_that_knows_nothing_of_it_is_refused(rig: RedisRig) -> None:
    frozen = Stopwatch()  # its clock stands still: only the broker can tell
    successor = rig.consuming()
    await successor.partitions()
    await rig.publish("12")
    past = [await own(rig.consuming(clock=frozen))]
    found = await read(past[0], 2)
    for _ in range(2):
        await rig.end_lease()
        past.append(await own(rig.consuming(clock=frozen)))
        await read(past[-1], 2)
    await rig.end_lease()
    partition = await own(successor)
    assert all(map(is_held, past))

    assert await past[0].settle(found) == found
    assert await past[1].dead_letter([(found[0], b"record")]) == found[:1]
    await rig.publish("3")
    with pytest.raises(BrokerError, match="not owned"):  # it is served, and must not hand it out
        await past[2].read(10, 1_000)

    assert not any(map(is_held, past))
    assert [one.loss.reason for one in past] == ["its lease ran out, and others may own it"] * 3
    for one in past:
        await one.release()  # which must not take the successor's lease
    assert partition.held
    assert names(await read(partition, 3)) == ["1", "2", "3"]
    assert await successor.backlog() == 3
    assert await rig.all_dead() == []


async def test_losing_a_lease_ends_a_read_under_way(rig: RedisRig) -> None:
    partition = await own(rig.consuming("lease=4"))  # renewed each second
    reading = asyncio.create_task(read(partition, 1))
    await rig.end_lease()
    with pytest.raises(BrokerError):
        await reading
    await eventually(lambda: not partition.held, "the owner knows")


async def test_what_was_not_handed_out_is_not_marked(rig: RedisRig) -> None:
    await rig.publish("123")
    partition = await own(rig.consuming())
    found = await read(partition, 2)
    await partition.settle(found[:1])
    await partition.release()
    again = await read(await own(rig.consuming()), 2)
    assert [(one.data, one.redelivered) for one in again] == [(b"2", True), (b"3", False)]


async def test_many_messages_are_disposed_of_in_parts(rig: RedisRig) -> None:
    await rig.publishing("partitions=1").partitions()
    await rig.publish(map(str, range(1_800)))
    partition = await own(rig.consuming())
    found = await read(partition, 1_800)
    assert await partition.settle(found[:1_100]) == []
    assert await partition.dead_letter([(message, b"why") for message in found[1_100:]]) == []
    await partition.release()
    async with rig.dead_letters() as dead:
        all_dead = [one async for one in dead.read()]
        assert [one.data for one in all_dead] == [b"why"] * 700
        await dead.remove(all_dead)
    assert await rig.left() == {"{prefix}:partitions"}


async def test_crashes_that_prove_nothing_are_not_counted(rig: RedisRig) -> None:
    for _ in range(5):  # the partition is empty
        await own(rig.consuming())
        await rig.crash()
    partition = await own(rig.consuming())
    assert not partition.isolated
    await partition.release()
    assert await rig.left() == set()
    await rig.publish("12345")
    for _ in range(4):  # there was progress between them
        partition = await own(rig.consuming())
        assert not partition.isolated
        await partition.settle(await read(partition, 1))
        await rig.crash()
    assert not (await own(rig.consuming())).isolated


async def test_care_is_for_what_was_handed_out(rig: RedisRig, caplog: pytest.LogCaptureFixture) -> None:
    await rig.publish("12")
    await rig.crash_often(3, 0)
    _, partition, message = await rig.isolated()
    assert "crashed" in caplog.text
    await rig.publish("345")
    assert await partition.settle([message, *await read(partition, 1)]) == []
    assert not is_isolated(partition), "with nothing handed out, what was there is isolated"
    await partition.release()
    await rig.crash_often(3, 2)
    for _ in range(2):  # care outlasts clean ends
        _, partition, message = await rig.isolated()
        await partition.release()
    _, partition, message = await rig.isolated()
    await partition.settle([message, *await read(partition, 1)])
    assert not is_isolated(partition), "the last was never handed out"
    (last,) = await read(partition, 1)
    assert await partition.begin(last)
    assert await rig.held_against() == ({}, {})


async def test_a_lost_partition_takes_back_its_own_attempt_alone(rig: RedisRig) -> None:
    await rig.publish("1")
    await rig.crash_often(3, 1)
    _, partition, message = await rig.isolated()
    await partition.begin(message)
    await rig.crash()
    _, successor, _ = await rig.isolated()
    await successor.begin(message)
    for stand in (2, 1, 1):
        assert list((await rig.held_against())[0].values()) == [str(stand)]
        await partition.release()
    assert successor.held
    assert await successor.settle([message]) == []
    await successor.withdraw(message)
    assert await rig.held_against() == ({}, {})


async def test_a_past_owner_begins_nothing(rig: RedisRig) -> None:
    await rig.publish("1")
    await rig.crash_often(3, 1)
    _, partition, message = await rig.isolated()
    await rig.end_lease()
    with pytest.raises(BrokerError, match="not owned"):
        await partition.begin(message)
    assert not partition.held


async def test_crashes_without_end_do_not_fill_the_server(rig: RedisRig) -> None:
    await rig.publish("1")
    end = rig.consuming()
    for _ in range(70):
        await own(end)
        await rig.crash()
    assert len((await rig.held_against())[1]) == 64


async def test_the_states_of_partitions(rig: RedisRig) -> None:
    publisher, consumer = rig.publishing("partitions=3"), rig.consuming()
    assert await publisher.partitions() == 3
    await rig.publish("12345")
    await rig.publish("12", partition=2)
    partition = await own(consumer, 2)
    await partition.dead_letter([((await read(partition, 1))[0], b"record")])
    assert await consumer.backlog() == 6
    states = await consumer.states()
    counts = [(state.number, state.backlog, state.dead) for state in states]
    assert counts == [(0, 5, 0), (1, 0, 0), (2, 1, 1)]
    assert states[0].owner is None
    assert ":" in (states[2].owner or "")
    assert states[1].oldest is None
    assert (states[0].oldest or 0) > 1_600_000_000


async def test_what_others_have_written(rig: RedisRig) -> None:
    async with rig.raw() as raw:
        await raw.xadd(rig.key("operations"), {"e": "1", "x": "2"})
        await raw.xadd(rig.key("operations"), {"x": "1"})
        partition = await own(rig.consuming())
        found = await read(partition, 2)
        assert names(found) == ["e 1 x 2", "x 1"], "entries are handed out as they are"
        assert await partition.settle(found) == []
        await raw.set(rig.key("partitions", None), "many")
    with pytest.raises(BrokerError, match="number of partitions"):
        await rig.publishing().partitions()


async def test_clearing_a_prefix(rig: RedisRig) -> None:
    consumer = rig.consuming()
    await consumer.partitions()
    await rig.publish("1")
    await consumer.acquire(0, 10)
    await consumer.fleet()
    await rig.consuming().stand_aside()
    async with rig.raw() as raw:
        await raw.hset(rig.key("blame"), "token", "")
    await rig.broker().clear()
    assert await rig.left() == set()


async def test_answers_that_nobody_takes_are_bounded_and_expire(
    rig: RedisRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "_ANSWERS_AT_ONCE", 5_000)
    dead, worker = rig.dead_letters(), rig.consuming()
    address = await dead.open_answers()
    assert address is not None
    for _ in range(4):
        await worker.answer(address, [b"1"] * 3_000)
    taken, listed = (f"{{{rig.prefix}:answers:{address}}}:{name}" for name in ("taken", "answers"))
    async with rig.raw() as raw:
        assert [0 < await raw.ttl(key) <= 3_600 for key in (taken, listed)] == [True, True]
        assert await raw.llen(listed) == 9_000
    await dead.disconnect()
    assert await rig.left() == set()


async def test_an_answer_whose_reply_was_lost_comes_again(rig: RedisRig) -> None:
    dead, worker = rig.dead_letters(), rig.consuming()
    address = await dead.open_answers()
    assert address is not None
    await worker.answer(address, [b"1"])
    keys = [f"{{{rig.prefix}:answers:{address}}}:{name}" for name in ("taken", "answers")]
    async with rig.raw() as raw:
        for _ in range(2):  # what the reader asked, as far as the server can know
            assert await raw.eval(dead_letters.TAKE.text, 2, *keys, "0") == ["1"]
    assert await dead.answers() == [b"1"]
