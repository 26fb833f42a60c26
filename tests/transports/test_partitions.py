"""What is published in a partition has one owner, which reads it in order."""

import asyncio

import pytest

from prefactor_core.broker.driver import Message
from prefactor_core.exceptions import BrokerError
from prefactor_rabbitmq.broker import RabbitBroker
from prefactor_redis.broker import RedisBroker
from tests.support.ports import free_port
from tests.transports.rig import PLENTY, Rig, names, own, read

AnyRig = Rig[RedisBroker] | Rig[RabbitBroker]
MIB = 1024 * 1024


async def test_batches_of_many_partitions_at_once_keep_their_orders(rig: AnyRig) -> None:
    end, consumer = rig.publishing("partitions=4"), rig.consuming()
    batch = [str(number) * 50 for number in range(600)]

    async def publish(number: int) -> None:
        for start in range(0, len(batch), 100):
            part = [f"{number}-{body}".encode() for body in batch[start : start + 100]]
            await end.publish(number, part)

    assert await end.partitions() == 4
    await asyncio.gather(*map(publish, range(4)))
    for number in range(4):
        partition = await own(consumer, number)
        assert (partition.number, partition.isolated) == (number, False)
        found: list[str] = []
        messages: list[Message] = []
        while len(found) < len(batch):
            messages = await partition.read(200, PLENTY)
            assert not any(message.redelivered for message in messages)
            for _ in range(2):  # repeating it is harmless
                assert await partition.settle(messages) == []
            found += names(messages)
        assert found == [f"{number}-{body}" for body in batch]
        await partition.release()
        assert list(await partition.settle(messages)) == messages


async def test_bodies_of_every_size_come_through_within_bounds(rig: AnyRig) -> None:
    sizes = [0, 1, 131_063, 131_064, 131_065, 262_128, *[MIB - 1] * 4, MIB]
    batch = [bytes([index]) * size for index, size in enumerate(sizes)]
    batch += [b"%d" % number for number in range(2_500)]
    await rig.publishing().publish(0, batch)
    partition = await own(rig.consuming())
    found: list[bytes] = []
    while len(found) < len(batch):
        some = await partition.read(5_000, 2 * MIB)
        assert sum(len(message.data) for message in some) <= 2 * MIB
        found += [message.data for message in some]
        assert await partition.settle(some) == []
    assert found == batch
    await rig.publishing().publish(0, [b"x" * MIB, b"small"])
    large, small = await partition.read(10, 100), await partition.read(10, 100)
    assert [len(message.data) for message in large + small] == [MIB, 5], "one at a time, the large one whole"


@pytest.mark.usefixtures("impatience")
async def test_an_empty_partition_is_waited_for(rig: AnyRig) -> None:
    partition = await own(rig.consuming())
    assert await partition.read(10, PLENTY) == []
    reading = asyncio.create_task(read(partition, 1))
    await rig.publish(["late"])
    assert names(await reading) == ["late"]
    found: list[str] = []
    for name in "abcde":  # a reading that is cancelled takes nothing along
        cancelled = asyncio.create_task(partition.read(1, PLENTY))
        await asyncio.sleep(0)
        if cancelled.cancel():
            with pytest.raises(asyncio.CancelledError):
                await cancelled
        else:
            found += names(await cancelled)
        await rig.publish([name])
    assert found + names(await read(partition, 5 - len(found))) == [*"abcde"]


async def test_ends_contend_for_a_partition(rig: AnyRig) -> None:
    ends = [rig.consuming() for _ in range(5)]
    for _ in range(2):
        got = await asyncio.gather(*(end.acquire(0, 10) for end in ends))
        (owner,) = [partition for partition in got if partition is not None]
        assert owner.held
        for end in ends:  # its owner, too, owns it already
            assert await end.acquire(0, 10) is None
        await owner.release()
    await own(ends[0])
    await ends[0].disconnect()
    assert await ends[1].acquire(0, 10) is not None, "what an end owns is given up with it"


async def test_a_release_ends_a_read_under_way_and_the_next_goes_on_from_there(rig: AnyRig) -> None:
    await rig.publish("abcdef")
    end, other = rig.consuming(), rig.consuming()
    owner = await own(end)
    messages = await read(owner, 6)
    assert await owner.settle([messages[0], messages[2]]) == []
    reading = asyncio.create_task(owner.read(10, PLENTY))
    await asyncio.sleep(0)
    await owner.release()
    for call in (reading, owner.read(1, 1)):
        with pytest.raises(BrokerError):
            await call
    assert list(await owner.settle(messages)) == messages
    await rig.publish("g")
    successor = await own(other)
    left = await read(successor, 5)
    assert [(message.data, message.redelivered) for message in left] == [
        *((name, True) for name in (b"b", b"d", b"e", b"f")),
        (b"g", False),
    ]
    await owner.release()
    assert successor.held
    await successor.release()
    again = await own(end)
    assert names(await read(again, 5)) == [*"bdefg"], "an end takes back what it has owned"


async def test_an_end_can_be_used_again_once_it_was_disconnected(rig: AnyRig) -> None:
    publisher, consumer = rig.publishing(), rig.consuming()
    for name in (b"1", b"2"):
        await publisher.publish(0, [name])
        partition = await own(consumer)
        found = await read(partition, 1)
        assert [message.data for message in found] == [name]
        assert await partition.settle(found) == []
        await partition.release()
        await publisher.disconnect()
        await consumer.disconnect()


async def test_the_number_of_partitions_is_agreed_once(rig: AnyRig) -> None:
    ends = [rig.publishing(f"partitions={number}") for number in (3, 5, 8)]
    counts = await asyncio.gather(*(end.partitions() for end in ends))
    assert len(set(counts)) == 1
    assert counts[0] in {3, 5, 8}
    later = rig.consuming("partitions=7")
    assert await later.partitions() == counts[0]
    assert len(await later.states()) == counts[0]


async def test_looking_makes_nothing(rig: AnyRig) -> None:
    end = rig.consuming()
    assert (await end.states(), await end.backlog()) == ([], 0)
    assert await rig.all_dead() == []
    await rig.broker().check()
    assert await end.standing_aside() == 0
    assert await rig.left() == set()


async def test_nobody_there(rig: AnyRig) -> None:
    """Neither at one host nor at the next."""
    scheme = rig.url.partition("://")[0]
    url = f"{scheme}://127.0.0.1:{free_port()}{rig.further_host}/"
    with pytest.raises(BrokerError, match="cannot be reached; is it running") as raised:
        await rig.publishing(url=url).publish(0, [b"x"])
    assert raised.value.confirmed == 0
    with pytest.raises(BrokerError, match="cannot be reached; is it running"):
        await rig.broker(url=url).check()
