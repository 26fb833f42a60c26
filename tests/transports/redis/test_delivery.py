"""What is published is read in order, settled, and gone."""

import asyncio
from collections.abc import Sequence

import pytest
import redis

from prefactor_core.broker.driver import Fleet, Message
from prefactor_core.exceptions import BrokerError
from tests.transports.redis.conftest import Ends, bodies, owned, read

MIB = 1024 * 1024


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [f"operation {number}".encode() for number in range(start, start + count)]


def left_over(raw: redis.Redis, prefix: str) -> set[str]:
    return {key.decode() for key in raw.scan_iter(match=f"*{prefix}*", count=10_000)}


async def test_the_order_of_what_was_published(ends: Ends) -> None:
    publisher, consumer = ends.publishing(), ends.consuming()
    for start in range(0, 1_000, 100):
        await publisher.publish(3, numbered(100, start))
    partition = await owned(consumer, 3)
    found = await read(partition, 1_000)
    assert bodies(found) == numbered(1_000)
    assert not any(message.redelivered for message in found)
    assert partition.number == 3
    assert not partition.isolated


async def test_large_batches_go_in_parts(ends: Ends) -> None:
    publisher, consumer = ends.publishing(), ends.consuming()
    batch = [bytes([number]) * (MIB - 1) for number in range(5)] + numbered(2_500)
    await publisher.publish(0, batch)
    partition = await owned(consumer)
    found: list[Message] = []
    while len(found) < len(batch):
        some = await partition.read(5_000, 2 * MIB)
        assert sum(len(message.data) for message in some) <= 2 * MIB
        found += some
    assert bodies(found) == batch


async def test_one_message_is_returned_whole_however_large(ends: Ends) -> None:
    publisher, consumer = ends.publishing(), ends.consuming()
    await publisher.publish(0, [b"x" * MIB, b"small"])
    partition = await owned(consumer)
    assert bodies(await partition.read(10, 100)) == [b"x" * MIB]
    assert bodies(await partition.read(10, 100)) == [b"small"]


async def test_reading_ends_without_messages(ends: Ends) -> None:
    partition = await owned(ends.consuming("lease=2"))
    assert await partition.read(10, 1_000) == []


async def test_a_read_that_waits_gets_what_comes(ends: Ends) -> None:
    publisher, partition = ends.publishing(), await owned(ends.consuming())
    reading = asyncio.create_task(read(partition, 1))
    await publisher.publish(0, [b"late"])
    assert bodies(await reading) == [b"late"]


async def test_a_cancelled_read_loses_nothing(ends: Ends) -> None:
    publisher, partition = ends.publishing(), await owned(ends.consuming())
    for number in range(5):
        reading = asyncio.create_task(partition.read(1, 100))
        await asyncio.sleep(0)  # it has begun
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await publisher.publish(0, [str(number).encode()])
    assert bodies(await read(partition, 5)) == [b"0", b"1", b"2", b"3", b"4"]


async def test_nothing_is_left_after_a_drain(ends: Ends, raw: redis.Redis) -> None:
    publisher, consumer = ends.publishing("partitions=2"), ends.consuming()
    assert await publisher.partitions() == 2
    await consumer.fleet()
    for number in range(2):
        await publisher.publish(number, numbered(1_200))
        partition = await owned(consumer, number)
        found = await read(partition, 1_200)
        assert await partition.settle(found[:1_100]) == []
        assert await partition.settle(found[:1_100]) == []  # repeating it is harmless
        assert await partition.dead_letter([(message, b"why") for message in found[1_100:]]) == []
        await partition.release()
        assert not partition.held
        assert await partition.settle(found) == found
    dead = ends.dead_letters()
    letters = [letter async for letter in dead.read()]
    assert [letter.data for letter in letters] == [b"why"] * 200
    assert {letter.partition for letter in letters} == {0, 1}
    await dead.remove(letters)
    await consumer.disconnect()
    assert left_over(raw, ends.prefix) == {f"{{{ends.prefix}}}:partitions"}


async def test_what_an_end_owns_is_given_up_with_it(ends: Ends) -> None:
    first, second = ends.consuming(), ends.consuming()
    await owned(first)
    assert await second.acquire(0, 10) is None
    await first.disconnect()
    assert await second.acquire(0, 10) is not None


async def test_release_ends_a_read_under_way(ends: Ends) -> None:
    partition = await owned(ends.consuming("lease=600"))  # its reads wait for two seconds
    reading = asyncio.create_task(partition.read(1, 1))
    await asyncio.sleep(0)
    async with asyncio.timeout(1):
        await partition.release()
        with pytest.raises(BrokerError):
            await reading
    await partition.release()
    with pytest.raises(BrokerError, match="not owned"):
        await partition.read(1, 1)


async def test_waiting_and_states(ends: Ends) -> None:
    publisher, consumer = ends.publishing("partitions=3"), ends.consuming()
    assert await consumer.waiting() == 0
    assert await consumer.states() == []  # looking records nothing
    assert await publisher.partitions() == 3
    await publisher.publish(0, numbered(5))
    await publisher.publish(2, numbered(2))
    partition = await owned(consumer, 2)
    await partition.dead_letter([((await read(partition, 1))[0], b"record")])
    assert await consumer.waiting() == 6
    states = await consumer.states()
    counts = [(state.number, state.waiting, state.dead) for state in states]
    assert counts == [(0, 5, 0), (1, 0, 0), (2, 1, 1)]
    assert states[0].owner is None
    assert states[2].owner is not None
    assert ":" in states[2].owner
    assert states[1].oldest is None
    assert states[0].oldest is not None
    assert states[0].oldest > 1_600_000_000


async def test_the_number_of_partitions_is_agreed_once(ends: Ends, raw: redis.Redis) -> None:
    numbers = await asyncio.gather(*(ends.publishing(f"partitions={n}").partitions() for n in (5, 6, 7)))
    assert len(set(numbers)) == 1
    assert await ends.consuming("partitions=9").partitions() == numbers[0]
    raw.set(f"{{{ends.prefix}}}:partitions", "many")
    with pytest.raises(BrokerError, match="number of partitions"):
        await ends.publishing().partitions()


async def test_the_fleet(ends: Ends, raw: redis.Redis) -> None:
    first, second = ends.consuming(), ends.consuming()
    assert await first.fleet() == Fleet(1, 0)
    await second.fleet()
    fleets = [await first.fleet(), await second.fleet(), await first.fleet()]
    assert [fleet.size for fleet in fleets] == [2, 2, 2]
    assert {fleets[0].rank, fleets[1].rank} == {0, 1}
    assert fleets[0] == fleets[2]
    await second.disconnect()
    assert await first.fleet() == Fleet(1, 0)
    await first.disconnect()
    assert not raw.exists(f"{{{ends.prefix}}}:workers")


async def test_a_member_that_died_is_forgotten(ends: Ends, raw: redis.Redis) -> None:
    raw.zadd(f"{{{ends.prefix}}}:workers", {"dead": 1.0})
    assert await ends.consuming().fleet() == Fleet(1, 0)


async def test_dead_letters_are_paged_and_stay_until_removed(ends: Ends) -> None:
    publisher, consumer, dead = ends.publishing(), ends.consuming(), ends.dead_letters()
    assert [letter async for letter in dead.read()] == []
    await publisher.partitions()
    await publisher.publish(1, numbered(250))
    partition = await owned(consumer, 1)
    found = await read(partition, 250)
    await partition.dead_letter([(message, b"about " + message.data) for message in found])
    letters = [letter async for letter in dead.read()]
    assert [letter.data for letter in letters] == [b"about " + body for body in numbered(250)]
    await dead.remove(letters[:100])
    assert [letter async for letter in dead.read()] == letters[100:]
    assert await consumer.waiting() == 0


@pytest.mark.parametrize("fields", [["e", "1", "x", "2"], ["x", "1"]])
async def test_entries_of_others_are_handed_out_as_they_are(
    ends: Ends, raw: redis.Redis, fields: Sequence[str]
) -> None:
    raw.xadd(f"{{{ends.prefix}:0}}:operations", dict(zip(fields[::2], fields[1::2], strict=True)))
    partition = await owned(ends.consuming())
    found = await read(partition, 1)
    assert bodies(found) == [" ".join(fields).encode()]
    assert await partition.settle(found) == []


async def test_an_end_can_be_used_again(ends: Ends) -> None:
    publisher, consumer = ends.publishing(), ends.consuming()
    for number in (b"1", b"2"):
        await publisher.publish(0, [number])
        partition = await owned(consumer)
        found = await read(partition, 1)
        assert bodies(found) == [number]
        assert await partition.settle(found) == []
        await publisher.disconnect()
        await consumer.disconnect()
