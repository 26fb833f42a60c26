"""What is declared, and what is there already."""

import asyncio
from collections.abc import Sequence

import pytest

from prefactor_core.broker.driver import ConsumingEnd
from prefactor_core.exceptions import BrokerError
from prefactor_rabbitmq.topology import difference, recorded_count
from tests.transports.rabbitmq.rig import Rig, own, read, until


async def test_two_ends_that_want_different_numbers_agree(rig: Rig) -> None:
    ends = [rig.publishing(rig.broker(partitions=number)) for number in (3, 5, 8)]
    counts = await asyncio.gather(*(end.partitions() for end in ends))
    assert len(set(counts)) == 1
    assert counts[0] in {3, 5, 8}
    later = rig.consuming(rig.broker(partitions=7))
    assert await later.partitions() == counts[0]
    assert len(await later.states()) == counts[0]


def _refusal(argument: str, received: str, current: str, queue: str = "a.partitions") -> str:
    """As the broker words it."""
    return (
        f"PRECONDITION_FAILED - inequivalent arg '{argument}' for queue '{queue}' in vhost '/': "
        f"received {received} but current is {current}"
    )


@pytest.mark.parametrize(
    "text",
    [
        _refusal("x-max-length", "'5'", "'16'"),
        _refusal("x-max-length", "the value '5' of type 'signedint'", "the value '16' of type 'signedint'"),
        _refusal("x-max-length", "none", "the value '16' of type 'byte'", "it's '3'"),
    ],
)
def test_the_recorded_number_is_read_from_the_refusal(text: str) -> None:
    assert recorded_count(text, "a.partitions") == 16


@pytest.mark.parametrize(
    "text",
    [
        _refusal("x-max-length", "'5'", "none"),
        _refusal("x-max-length", "'5'", "'0'"),
        _refusal("x-max-length", "'5'", "'-3'"),
        _refusal("durable", "'true'", "'false'"),
        "something else",
        "",
    ],
)
def test_other_refusals_are_no_number(text: str) -> None:
    with pytest.raises(BrokerError, match="another prefix"):
        recorded_count(text, "q")


def test_the_difference_is_named() -> None:
    text = _refusal("x-queue-type", "none", "the value 'quorum' of type 'longstr'")
    assert difference(text) == ("x-queue-type", "quorum")
    assert difference("unknown delivery tag 4") == ("", "")


async def test_somebody_elses_queue_is_named_in_plain_words(rig: Rig) -> None:
    async with rig.channel() as channel:
        await channel.queue_declare(f"{rig.prefix}.1", durable=True)
    end = rig.publishing()
    with pytest.raises(BrokerError, match=rf"{rig.prefix}\.1 exists .* another prefix"):
        await end.partitions()
    (problem,) = await rig.broker().check()
    assert f"{rig.prefix}.1" in problem
    assert "another prefix" in problem


async def test_a_sound_broker_has_no_problems(rig: Rig) -> None:
    assert await rig.broker().check() == []


async def test_looking_declares_nothing(rig: Rig) -> None:
    end = rig.consuming()
    assert await end.states() == []
    assert await end.waiting() == 0
    assert not await rig.exists("partitions")


async def test_after_a_drain_only_the_empty_frame_is_left(rig: Rig) -> None:
    await rig.publish(["a", "b"])
    ends = [rig.consuming(), rig.consuming()]
    for number, end in enumerate(ends):
        await end.fleet()
        partition = await own(end, number)
        await partition.settle(await read(partition, 2 if number == 0 else 0))
    await ends[0].acquire(1, 10)  # somebody else's
    for end in ends:
        await end.disconnect()

    async def gone() -> bool:
        return not any([await rig.exists(name) for name in ("workers", "0.owner", "1.owner")])

    await until(gone, "the end of owners and fleet", 5)
    for name in ("partitions", "0", "1", "dead"):
        assert await rig.depth(name) == 0


async def test_the_fleet_is_counted(rig: Rig) -> None:
    ends = [rig.consuming() for _ in range(3)]
    sizes = [(await end.fleet()).size for end in ends]
    assert sizes == [1, 2, 3]
    assert (await ends[0].fleet()).size == 3
    assert (await ends[0].fleet()).rank is None
    await ends[2].disconnect()

    async def two() -> bool:
        return (await ends[0].fleet()).size == 2

    await until(two, "a fleet of two", 5)
    await rig.delete("workers")
    await until(lambda: _both(ends[:2]), "a fleet that came together again", 5)


async def _both(ends: Sequence[ConsumingEnd]) -> bool:
    return [(await end.fleet()).size for end in ends] == [2, 2]


async def test_a_check_makes_nothing(rig: Rig) -> None:
    assert await rig.broker().check() == []
    assert not any([await rig.exists(name) for name in ("partitions", "dead", "0", "1")])


async def test_somebody_elses_queue_is_found_before_anybody_uses_the_broker(rig: Rig) -> None:
    async with rig.channel() as channel:
        await channel.queue_declare(f"{rig.prefix}.1", durable=True)
    (problem,) = await rig.broker().check()
    assert f"the queue {rig.prefix}.1 exists and was not made by this version" in problem
    assert not await rig.exists("partitions")


async def test_what_is_missing_is_said_and_not_made(rig: Rig) -> None:
    await rig.publish(["a"])
    await rig.delete("1")
    (problem,) = await rig.broker().check()
    assert f"{rig.prefix}.1 is missing" in problem
    assert not await rig.exists("1")
