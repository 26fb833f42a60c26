"""What is handed over cleanly is held against nobody; crashes in between count as they always do."""

import logging

import pytest

from prefactor_core.transport import Message
from prefactor_rabbitmq.consuming import RabbitConsumingEnd
from prefactor_rabbitmq.inbox import PREFETCH
from prefactor_rabbitmq.partition import RabbitPartition
from tests.transports.rabbitmq.rig import RabbitRig, cut, own, until_left
from tests.transports.rig import names, read, until

BACKLOG = [f"{number:02}" for number in range(40)]
NOTE = "0.handover"
pytestmark = pytest.mark.usefixtures("impatience")


async def _owner(end: RabbitConsumingEnd) -> tuple[RabbitPartition, list[Message]]:
    """Own partition 0 and begin to read."""
    owner = await own(end)
    return owner, await read(owner, 1)


async def _all(end: RabbitConsumingEnd) -> RabbitPartition:
    """Own partition 0 and read the backlog, which must hold no may_be_poison."""
    owner, messages = await _owner(end)
    assert not owner.isolated
    messages += await read(owner, len(BACKLOG) - len(messages))
    assert names(messages) == BACKLOG
    assert not owner.isolated
    return owner


async def _hand_over(rig: RabbitRig, times: int = 1) -> None:
    """Own the backlog and release it, each time as another process."""
    for _ in range(times):
        await (await _all(rig.consuming())).release()


async def _hand_over_one(rig: RabbitRig) -> None:
    """Own the backlog and release it with its first message handed out, isolated or not."""
    owner, _ = await _owner(rig.consuming())
    await owner.release()


async def _crash(rig: RabbitRig) -> None:
    end = rig.consuming()
    await _all(end)
    cut(end)


def _unexplained(end: RabbitConsumingEnd, owner: RabbitPartition) -> set[int]:
    """Return how many returns of each message count against it."""
    return {returns - end._memory.survived(name) for name, returns in owner.inbox.returns.items()}


def _said(caplog: pytest.LogCaptureFixture, words: str) -> int:
    return sum(words in record.getMessage() for record in caplog.records)


async def test_hand_overs_isolate_nobody(rig: RabbitRig) -> None:
    """Neither among many processes nor to and fro between a few."""
    await rig.publish(BACKLOG)
    await _hand_over(rig, 5)
    assert await rig.depth(NOTE) == 1
    ends = [rig.consuming() for _ in range(3)]
    for number in (0, 1, 0, 0, 1, 1, 1, 0, 2, 0, 1, 2):
        await (await _all(ends[number])).release()
    await (await _all(rig.consuming())).release()
    assert [data.decode() for data in await rig.drain()] == BACKLOG
    assert not await rig.exists(NOTE)


async def test_what_is_still_on_its_way_at_a_hand_over_is_told_too(rig: RabbitRig) -> None:
    await rig.publish(map(str, range(PREFETCH)))
    for _ in range(4):
        owner = await own(rig.consuming())
        await owner.release()
    owner, _ = await _owner(rig.consuming())
    assert not owner.isolated
    assert names(await read(owner, PREFETCH - 1)) == [str(number) for number in range(1, PREFETCH)]
    assert not owner.isolated


async def test_each_crash_between_hand_overs_counts_once_and_three_isolate(rig: RabbitRig) -> None:
    await rig.publish(BACKLOG)
    for crashes in (1, 2):
        await _hand_over(rig, 2)
        await _crash(rig)
        assert await rig.depth(NOTE) == 1, "it stays there for the next"
        await _hand_over(rig)
        end = rig.consuming()
        owner = await _all(end)
        assert _unexplained(end, owner) == {crashes}
        await owner.release()
    await _crash(rig)
    await _hand_over_one(rig)
    owner, messages = await _owner(rig.consuming())
    assert owner.isolated
    assert names(messages) == BACKLOG[:1]


async def test_the_note_goes_with_the_last_message_that_it_names_whoever_crashed_meanwhile(
    rig: RabbitRig,
) -> None:
    await rig.publish(BACKLOG)
    await _hand_over(rig)
    end = rig.consuming()
    owner = await own(end)
    messages = await read(owner, len(BACKLOG))
    half = len(BACKLOG) // 2
    assert not await owner.settle(messages[:half])
    await until_left(end, half)
    cut(end)
    owner = await own(rig.consuming())
    left = await read(owner, half)
    assert names(left) == BACKLOG[half:]
    await rig.publish("fresh")
    assert not await owner.settle(left[1:])
    assert await rig.exists(NOTE)
    assert not await owner.settle(left[:1])
    assert not await rig.exists(NOTE)


async def test_a_note_is_left_only_for_what_goes_on(rig: RabbitRig) -> None:
    await (await own(rig.consuming())).release()
    assert not await rig.exists(NOTE), "who holds nothing leaves nothing"
    await rig.publish(BACKLOG)
    assert len(await rig.drain()) == len(BACKLOG)
    assert not await rig.exists(NOTE), "what is drained is nobody's"
    await rig.publish(BACKLOG)
    await _hand_over(rig)
    await _all(rig.consuming())
    await rig.delete("0")

    async def gone() -> bool:
        return not await rig.exists(NOTE)

    await until(gone, "the end of the note with its queue")
    await rig.publish(BACKLOG)
    await _hand_over(rig)
    assert await rig.exists(NOTE)
    await rig.broker().clear()
    assert not await rig.exists(NOTE), "clearing takes notes along"


NO_NOTES = [
    b"",
    b"\xff\x00",
    b"[]",
    b'{"v": 2, "survived": {}}',
    b'{"survived": {}}',
    b'{"v": 1}',
    b'{"v": 1, "survived": [1]}',
    b'{"v": 1, "survived": {"a": 0}}',
    b'{"v": 1, "survived": {"a": true}}',
    b'{"v": 1, "survived": {"a": "3"}}',
    b'{"v": 1, "survived": {"a": 3}}' + b" " * 200_000,
]


async def test_a_note_that_is_none_is_ignored(rig: RabbitRig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "prefactor_rabbitmq")
    await rig.publish(BACKLOG)
    await _hand_over(rig, 3)
    for ignored, body in enumerate(NO_NOTES, 1):
        async with rig.channel() as channel:
            await channel.basic_publish(body, routing_key=f"{rig.prefix}.{NOTE}")
        owner, messages = await _owner(rig.consuming())
        assert owner.isolated, body[:40]
        assert names(messages) == BACKLOG[:1]
        assert await owner.read(10, 1 << 20) == []
        await owner.release()
        assert _said(caplog, "is ignored") == ignored, body[:40]
    await _hand_over_one(rig)  # by now there is a sound one
    assert _said(caplog, "is ignored") == len(NO_NOTES)


async def test_a_broker_that_refuses_the_note_keeps_nobody_from_handing_over(
    rig: RabbitRig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "prefactor_rabbitmq")
    await rig.publish(BACKLOG)
    ends = [rig.consuming() for _ in range(4)]
    async with rig.channel() as channel:
        await channel.queue_declare(f"{rig.prefix}.{NOTE}", exclusive=True)
        for end in ends[:3]:
            await (await _all(end)).release()
        assert _said(caplog, "told nothing") == 3
        owner, messages = await _owner(ends[3])
        assert owner.isolated
        assert _said(caplog, "not known") == 1
        assert names(messages) == BACKLOG[:1]
        await owner.release()
        assert _said(caplog, "told nothing") == 4
    await _hand_over_one(rig)
    assert await rig.depth(NOTE) == 1
