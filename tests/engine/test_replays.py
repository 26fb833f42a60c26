"""The command that replays dead letters is told what became of them; disposal never waits for that."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from prefactor_core.broker.answers import Answer, decode_answer
from prefactor_core.broker.dead_letters import Replay, Selection
from prefactor_core.broker.envelope import Envelope, encode
from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.operations import Operation
from prefactor_core.queue.base import DeadLetter, Delivery
from prefactor_core.queue.intake import BufferBounds
from tests.engine.setups import receive
from tests.engine.virtual import virtual
from tests.support.fake_broker import FakeBroker, FakeConsumingEnd, FakeDeadLetterEnd, Fault, now
from tests.support.operations import key_of, quality

REFUSED = "the instance is over: HTTP 409 invalid_action"
ALL = Selection()


@asynccontextmanager
async def queue_at(broker: FakeBroker) -> AsyncIterator[BrokerQueue]:
    queue = BrokerQueue(broker, BufferBounds(1_000, 1 << 30))
    try:
        yield queue
    finally:
        await queue.close()
        await queue.disconnect()
        assert broker.wrongs == []


async def dead_letter_all(
    queue: BrokerQueue, deliveries: Sequence[Delivery[Operation]], reason: str = "why"
) -> None:
    all_dead = [(one, DeadLetter(one.item, reason, 1, "a secret of the reply")) for one in deliveries]
    assert not await queue.dead_letter(all_dead)


async def with_letters(broker: FakeBroker, queue: BrokerQueue, number: int) -> None:
    """Have so many dead letters of one instance there."""
    operations = [quality("a", one) for one in range(number)]
    broker.put(0, *(encode(Envelope(f"id-{one}", one, op)) for one, op in enumerate(operations)))
    await dead_letter_all(queue, await receive(queue, number))


def replaying(queue: BrokerQueue, wait: float = 30.0) -> asyncio.Task[Replay]:
    return asyncio.create_task(queue.dead_letters.replay(ALL, wait=wait))


@virtual
async def test_what_was_delivered_and_what_was_kept_is_told() -> None:
    broker = FakeBroker()
    async with queue_at(broker) as queue, queue_at(broker) as operator:
        await with_letters(broker, queue, 6)
        replay = replaying(operator)
        again = await receive(queue, 6)
        assert not await queue.settle(again[:3])
        await dead_letter_all(queue, again[3:5], REFUSED)
        await dead_letter_all(queue, again[5:], "another")
        began = now()
        found = await replay
        assert now() - began < 2, "nobody waits for what has come"
        assert (found.replayed, found.delivered, found.pending, found.gone) == (6, 3, 0, ())
        assert found.kept == {REFUSED: ["id-3", "id-4"], "another": ["id-5"]}
        assert [*found.kept] == [REFUSED, "another"]
        # What was kept can be replayed once more, and that is told anew.
        replay = replaying(operator)
        assert not await queue.settle(await receive(queue, 3))
        assert ((await replay).delivered, broker.all_dead) == (3, [])
    assert broker.answers == {}, "nothing is left of it"


@virtual
async def test_no_news_end_the_wait_and_each_answer_prolongs_it() -> None:
    broker = FakeBroker()
    async with queue_at(broker) as queue, queue_at(broker) as operator:
        await with_letters(broker, queue, 4)
        began = now()
        replay = replaying(operator, wait=10)
        for one in await receive(queue, 3):
            await asyncio.sleep(8)
            assert not await queue.settle([one])
        found = await replay
        assert (found.replayed, found.delivered, found.pending, found.kept) == (4, 3, 1, {})
        assert 33 < now() - began < 37


@virtual
async def test_nobody_waits_who_does_not_want_to_or_cannot() -> None:
    broker = FakeBroker()
    async with queue_at(broker) as queue:
        await with_letters(broker, queue, 2)
        began = now()
        found = await queue.dead_letters.replay(ALL)
        assert (found.replayed, found.pending, found.answers) == (2, 2, True)
        again = await receive(queue, 2)
        assert not any("answer_to" in one.item.metadata for one in again)
        await dead_letter_all(queue, again)
        broker.tells_outcomes = False
        found = await queue.dead_letters.replay(ALL, wait=30)
        assert (found.replayed, found.pending, found.answers) == (2, 2, False)
        assert now() - began < 10
        assert not await queue.settle(await receive(queue, 2))
        assert (await queue.dead_letters.replay(ALL, wait=30)) == Replay()


@virtual
async def test_what_was_meant_and_is_gone_is_told() -> None:
    broker = FakeBroker()
    async with queue_at(broker) as queue:
        await with_letters(broker, queue, 3)
        wanted = Selection(ids=["id-1", "id-2"])
        assert await queue.dead_letters.purge(Selection(ids=["id-2"])) == 1
        found = await queue.dead_letters.replay(wanted)
        assert (found.replayed, found.gone) == (1, ("id-2",))


@virtual
async def test_disposal_and_the_end_wait_for_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that takes no answers costs the worker nothing, and the operator the outcome."""

    async def never(*_: object) -> None:
        await asyncio.sleep(3_600)

    broker = FakeBroker()
    async with queue_at(broker) as operator:
        async with queue_at(broker) as queue:
            await with_letters(broker, queue, 2)
            broker.fail("answer", Fault())
            replay = replaying(operator, wait=60)
            one, two = await receive(queue, 2)
            began = now()
            assert not await queue.settle([one])
            await asyncio.sleep(1)
            monkeypatch.setattr(FakeConsumingEnd, "answer", never)
            await dead_letter_all(queue, [two])
            assert now() - began < 1.1
        assert now() - began < 5
        found = await replay
        assert (found.replayed, found.pending) == (2, 2)


@virtual
async def test_a_worker_that_ends_tells_what_it_did_last() -> None:
    broker = FakeBroker()
    async with queue_at(broker) as operator:
        async with queue_at(broker) as queue:
            await with_letters(broker, queue, 1)
            replay = replaying(operator)
            assert not await queue.settle(await receive(queue, 1))
        assert (await replay).delivered == 1


@virtual
async def test_a_partition_that_was_lost_meanwhile_is_answered_by_its_owner_only() -> None:
    broker = FakeBroker(1)
    async with queue_at(broker) as first, queue_at(broker) as operator:
        await with_letters(broker, first, 1)
        replay = replaying(operator)
        (lost,) = await receive(first, 1)
        broker.lose(0)
        assert await first.settle([lost]) == [lost]
        (again,) = await receive(first, 1)
        await dead_letter_all(first, [again], REFUSED)
        found = await replay
        assert (found.delivered, found.kept) == (0, {REFUSED: ["id-0"]})


@virtual
async def test_answers_hold_no_payload_and_are_short() -> None:
    broker = FakeBroker()
    heard: list[bytes] = []
    async with queue_at(broker) as queue, queue_at(broker) as operator:
        await with_letters(broker, queue, 1)
        replay = replaying(operator)
        again = await receive(queue, 1)
        taken = broker.answers[again[0].item.metadata["answer_to"]]
        await dead_letter_all(queue, again, "x" * 5_000)
        while not taken:
            await asyncio.sleep(0.001)
        heard += taken
        assert (await replay).kept_count == 1
    (one,) = heard
    assert len(one) < 500
    assert b"secret" not in one
    assert key_of(again[0].item).encode() not in one


def test_what_is_no_answer_is_passed_over() -> None:
    for data in (b"", b"\xff", b"[]", b"{}", b'{"id": 1, "outcome": "kept"}', b'{"id": "a", "outcome": "x"}'):
        assert decode_answer(data) is None
    assert decode_answer(b'{"id": "a", "outcome": "kept", "reason": 5}') == Answer(
        "a", "kept", "no reason given"
    )


@virtual
async def test_a_driver_that_swallows_a_cancellation_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = FakeDeadLetterEnd.answers

    async def deaf(end: FakeDeadLetterEnd) -> list[bytes]:
        with suppress(asyncio.CancelledError):
            return await answers(end)
        return []

    monkeypatch.setattr(FakeDeadLetterEnd, "answers", deaf)
    broker = FakeBroker()
    async with queue_at(broker) as queue, queue_at(broker) as operator:
        await with_letters(broker, queue, 1)
        replay = replaying(operator)
        assert not await queue.settle(await receive(queue, 1))
        async with asyncio.timeout(10):
            assert (await replay).delivered == 1
