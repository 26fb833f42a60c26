"""Attempts at operations in isolation: recorded, taken back, and forgotten once they have ended."""

import redis

from prefactor_core.broker.driver import MAX_ATTEMPTS, Message, Partition
from tests.transports.redis.conftest import Ends, owned, read


def end_owner(raw: redis.Redis, ends: Ends) -> None:
    """Do what death does to the owner of partition 0."""
    tag = f"{{{ends.prefix}:0}}"
    raw.hset(f"{tag}:owner", "channel", "nobody's")
    assert raw.delete(f"{tag}:lease") == 1


async def isolated(ends: Ends, raw: redis.Redis, count: int) -> tuple[Partition, list[Message]]:
    """Own partition 0, with operations in it, after three crashes."""
    await ends.publishing().publish(0, [b"%d" % number for number in range(count)])
    for _ in range(3):
        await read(await owned(ends.consuming()), count)
        end_owner(raw, ends)
    partition = await owned(ends.consuming())
    assert partition.isolated
    return partition, await read(partition, count)


def recorded(raw: redis.Redis, ends: Ends) -> list[int]:
    return [int(count) for count in raw.hvals(f"{{{ends.prefix}:0}}:attempts")]


async def test_an_attempt_is_recorded_once_and_taken_back(ends: Ends, raw: redis.Redis) -> None:
    partition, (first, second) = await isolated(ends, raw, 2)
    await partition.withdraw(first)  # nothing is begun
    for _ in range(2):
        assert await partition.begin(first)
        assert await partition.begin(first)
        assert recorded(raw, ends) == [1]
        assert await partition.attempts(first) == 0  # its own is not one that ended in a crash
        await partition.withdraw(second)
        assert recorded(raw, ends) == [1]
        await partition.withdraw(first)
        await partition.withdraw(first)
        assert recorded(raw, ends) == []
    assert await partition.begin(first)
    assert await partition.settle([first]) == []
    await partition.withdraw(first)
    assert recorded(raw, ends) == []


async def test_attempts_of_others_stand(ends: Ends, raw: redis.Redis) -> None:
    partition, (message,) = await isolated(ends, raw, 1)
    for crashes in range(MAX_ATTEMPTS + 2):
        assert await partition.attempts(message) == crashes
        assert await partition.begin(message) == (crashes < MAX_ATTEMPTS)
        await partition.withdraw(message)
        assert await partition.attempts(message) == crashes
        assert await partition.begin(message) == (crashes < MAX_ATTEMPTS)
        assert recorded(raw, ends) == [crashes + 1]  # also beyond what is allowed
        end_owner(raw, ends)
        partition = await owned(ends.consuming())
        (message,) = await read(partition, 1)
    await partition.release()
    assert recorded(raw, ends) == [MAX_ATTEMPTS + 2]


async def test_a_release_takes_back_what_had_not_ended(ends: Ends, raw: redis.Redis) -> None:
    partition, (message,) = await isolated(ends, raw, 1)
    await partition.begin(message)
    await partition.release()
    assert recorded(raw, ends) == []
    await partition.release()
    assert (await owned(ends.consuming())).isolated


async def test_a_lost_partition_takes_back_its_own_attempt_alone(ends: Ends, raw: redis.Redis) -> None:
    partition, (message,) = await isolated(ends, raw, 1)
    await partition.begin(message)
    end_owner(raw, ends)
    successor = await owned(ends.consuming())
    await read(successor, 1)
    await successor.begin(message)
    assert recorded(raw, ends) == [2]
    for _ in range(2):
        await partition.release()
        assert recorded(raw, ends) == [1]
    assert successor.held
    assert await successor.settle([message]) == []


async def test_crashes_without_end_do_not_fill_the_server(ends: Ends, raw: redis.Redis) -> None:
    await ends.publishing().publish(0, [b"1"])
    for _ in range(70):
        await owned(ends.consuming())
        end_owner(raw, ends)
    assert raw.hlen(f"{{{ends.prefix}:0}}:blame") == 64
