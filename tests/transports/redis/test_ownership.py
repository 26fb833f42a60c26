"""One owner a partition: leases, fences, crashes and the care after them."""

import asyncio
import json
import signal
import sys
from pathlib import Path

import pytest
import redis

from prefactor_core.broker.driver import ConsumingEnd, Partition
from prefactor_core.exceptions import BrokerError
from prefactor_redis.lease import Lease
from tests.transports.redis.conftest import Ends, bodies, eventually, is_held, owned, read

ROOT = Path(__file__).parents[3]


class Stopwatch:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def end_lease(raw: redis.Redis, ends: Ends, number: int = 0) -> None:
    """Do what time does to a lease that nobody renews."""
    assert raw.delete(f"{{{ends.prefix}:{number}}}:lease") == 1


def end_owner(raw: redis.Redis, ends: Ends, number: int = 0) -> None:
    """Do what death does to an owner: nobody subscribes to its channel, and time ends its lease."""
    raw.hset(f"{{{ends.prefix}:{number}}}:owner", "channel", "nobody's")
    end_lease(raw, ends, number)


def is_isolated(partition: Partition) -> bool:
    """Ask anew: nothing is concluded from what it was before."""
    return partition.isolated


async def crash(raw: redis.Redis, ends: Ends, consumer: ConsumingEnd, count: int) -> None:
    """Own partition 0, read some of it, and vanish."""
    partition = await owned(consumer)
    if count:
        await read(partition, count)
    end_owner(raw, ends)


def test_a_lease_is_over_before_the_broker_ends_it() -> None:
    clock = Stopwatch()
    lease = Lease(10, asked_at=0, clock=clock)
    clock.now = 7.9
    assert is_held(lease)
    lease.renewed(asked_at=5)
    clock.now = 12.9
    assert is_held(lease)
    lease.renewed(asked_at=1)  # an answer that comes late shortens nothing
    assert is_held(lease)
    clock.now = 13.0
    assert not is_held(lease)
    lease.renewed(asked_at=13)
    clock.now = 5
    assert not is_held(lease)  # never again


async def test_two_ends_contend_for_a_partition(ends: Ends) -> None:
    consumers = [ends.consuming() for _ in range(5)]
    taken = [one for one in await asyncio.gather(*(end.acquire(0, 10) for end in consumers)) if one]
    assert len(taken) == 1
    assert taken[0].held
    await taken[0].release()
    taken = [one for one in await asyncio.gather(*(end.acquire(0, 10) for end in consumers)) if one]
    assert len(taken) == 1


async def test_a_lease_is_renewed(ends: Ends) -> None:
    first, second = ends.consuming("lease=1"), ends.consuming("lease=1")
    partition = await owned(first)
    until = asyncio.get_running_loop().time() + 2.5
    while asyncio.get_running_loop().time() < until:
        assert partition.held
        assert await second.acquire(0, 10) is None
        await asyncio.sleep(0.1)


async def test_an_owner_whose_time_is_up_does_nothing_more(ends: Ends) -> None:
    clock = Stopwatch()
    publisher, consumer = ends.publishing(), ends.consuming(clock=clock)
    await consumer.partitions()
    await publisher.publish(0, [b"1", b"2"])
    partition = await owned(consumer)
    found = await read(partition, 1)
    clock.now = 12.0  # of 15, of which a part is left for safety
    assert not is_held(partition)
    assert await partition.settle(found) == found
    assert await partition.dead_letter([(found[0], b"record")]) == found
    with pytest.raises(BrokerError, match="not owned"):
        await partition.read(1, 100)
    clock.now = 0.0
    assert not partition.held
    assert await consumer.waiting() == 2


async def test_a_past_owner_that_knows_nothing_of_it_is_refused(ends: Ends, raw: redis.Redis) -> None:
    frozen = Stopwatch()  # its clock stands still: only the broker can tell
    publisher, successor = ends.publishing(), ends.consuming()
    await successor.partitions()
    await publisher.publish(0, [b"1", b"2"])
    past = [await owned(ends.consuming(clock=frozen))]
    found = await read(past[0], 2)
    for _ in range(2):
        end_lease(raw, ends)
        past.append(await owned(ends.consuming(clock=frozen)))
        await read(past[-1], 2)
    end_lease(raw, ends)
    partition = await owned(successor)
    assert all(map(is_held, past))

    assert await past[0].settle(found) == found
    assert await past[1].dead_letter([(found[0], b"record")]) == found[:1]
    await publisher.publish(0, [b"3"])
    with pytest.raises(BrokerError, match="not owned"):  # it is served, and must not hand it out
        await past[2].read(10, 1_000)

    assert not any(map(is_held, past))
    assert [one.loss.reason for one in past] == ["its lease ran out, and others may own it"] * 3
    for one in past:
        await one.release()  # which must not take the successor's lease
    assert partition.held
    assert bodies(await read(partition, 3)) == [b"1", b"2", b"3"]
    assert await successor.waiting() == 3
    assert [letter async for letter in ends.dead_letters().read()] == []


async def test_a_process_frozen_inside_its_read(ends: Ends) -> None:
    publisher, successor = ends.publishing(), ends.consuming()
    await successor.partitions()
    await publisher.publish(0, [b"first"])
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.transports.redis.owner_process",
        f"{ends.url}?prefix={ends.prefix}&lease=1",
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        async with asyncio.timeout(20):
            assert await child.stdout.readline() == b"reading\n"
            child.send_signal(signal.SIGSTOP)
            partition = await owned(successor)
            await publisher.publish(0, [b"second"])
            found = await read(partition, 2)
            assert bodies(found) == [b"first", b"second"]
            assert [message.redelivered for message in found] == [True, False]
            child.send_signal(signal.SIGCONT)
            outcome = json.loads(await child.stdout.readline())
        assert outcome == {"served": [], "held": False, "refused": 1}
        assert (await successor.waiting(), partition.held) == (2, True)
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def test_what_was_handed_out_before_is_marked(ends: Ends) -> None:
    publisher, consumer = ends.publishing(), ends.consuming()
    await publisher.publish(0, [b"1", b"2", b"3"])
    partition = await owned(consumer)
    found = await read(partition, 2)
    await partition.settle(found[:1])
    await partition.release()
    await publisher.publish(0, [b"4"])
    again = await read(await owned(consumer), 3)
    assert [(one.data, one.redelivered) for one in again] == [(b"2", True), (b"3", False), (b"4", False)]


async def test_clean_ends_are_no_crashes(ends: Ends) -> None:
    publisher, consumer = ends.publishing(), ends.consuming()
    await publisher.publish(0, [b"1"])
    for _ in range(5):
        partition = await owned(consumer)
        await read(partition, 1)
        assert not partition.isolated
        await partition.release()


async def test_crashes_with_progress_between_them(ends: Ends, raw: redis.Redis) -> None:
    publisher = ends.publishing()
    await publisher.publish(0, [b"1", b"2", b"3", b"4", b"5"])
    for _ in range(4):
        partition = await owned(ends.consuming())
        assert not partition.isolated
        await partition.settle(await read(partition, 1))
        end_owner(raw, ends)
    assert not (await owned(ends.consuming())).isolated


async def test_crashes_of_an_empty_partition_count_nothing(ends: Ends, raw: redis.Redis) -> None:
    for _ in range(5):
        await crash(raw, ends, ends.consuming(), 0)
    partition = await owned(ends.consuming())
    assert not partition.isolated
    await partition.release()
    assert not list(raw.scan_iter(match=f"*{ends.prefix}*", count=10_000))


async def isolated_partition(ends: Ends, raw: redis.Redis, handed_out: int) -> Partition:
    """Let three owners crash, and be the fourth."""
    for _ in range(3):
        await crash(raw, ends, ends.consuming(), handed_out)
    return await owned(ends.consuming())


async def test_care_after_three_crashes(
    ends: Ends, raw: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    await ends.publishing().publish(0, [b"1", b"poison", b"3", b"4"])
    partition = await isolated_partition(ends, raw, handed_out=3)
    assert "crashed" in caplog.text
    (first,) = await partition.read(1, 1)
    assert await partition.begin(first)
    assert await partition.settle([first]) == []
    for _ in range(3):  # more owners die of it
        (poison,) = await partition.read(1, 1)
        assert poison.data == b"poison"
        assert await partition.begin(poison)
        end_owner(raw, ends)
        partition = await owned(ends.consuming())
        assert is_isolated(partition)
    (poison,) = await partition.read(1, 1)
    assert not await partition.begin(poison)
    assert await partition.dead_letter([(poison, b"it kills")]) == []
    assert is_isolated(partition)
    (third,) = await partition.read(1, 1)
    assert await partition.begin(third)
    await partition.settle([third])
    assert not is_isolated(partition)  # the fourth was never handed out
    (fourth,) = await partition.read(1, 1)
    assert await partition.begin(fourth)  # counts nothing any more
    assert not raw.exists(f"{{{ends.prefix}:0}}:attempts")
    await partition.settle([fourth])
    await partition.release()
    left = {key.decode() for key in raw.scan_iter(match=f"*{ends.prefix}*", count=10_000)}
    assert left == {f"{{{ends.prefix}:0}}:dead"}


async def test_care_without_anything_handed_out(ends: Ends, raw: redis.Redis) -> None:
    await ends.publishing().publish(0, [b"1", b"2"])
    partition = await isolated_partition(ends, raw, handed_out=0)
    await ends.publishing().publish(0, [b"3"])
    assert is_isolated(partition)
    assert await partition.settle(await read(partition, 2)) == []
    assert not is_isolated(partition)


async def test_care_outlasts_clean_ends(ends: Ends, raw: redis.Redis) -> None:
    await ends.publishing().publish(0, [b"1", b"2"])
    partition = await isolated_partition(ends, raw, handed_out=2)
    await partition.release()
    partition = await owned(ends.consuming())
    assert is_isolated(partition)
    await partition.settle(await read(partition, 2))
    assert not is_isolated(partition)


async def test_a_past_owner_begins_nothing(ends: Ends, raw: redis.Redis) -> None:
    await ends.publishing().publish(0, [b"1"])
    partition = await isolated_partition(ends, raw, handed_out=1)
    (message,) = await partition.read(1, 1)
    end_lease(raw, ends)
    with pytest.raises(BrokerError, match="not owned"):
        await partition.begin(message)
    assert not partition.held


async def test_losing_a_lease_ends_a_read_under_way(ends: Ends, raw: redis.Redis) -> None:
    partition = await owned(ends.consuming("lease=4"))  # renewed each second
    reading = asyncio.create_task(read(partition, 1))
    end_lease(raw, ends)
    with pytest.raises(BrokerError):
        await reading
    await eventually(lambda: not partition.held, "the owner knows")
