"""Several readers of the dead letters: one at a time, and each of them sees everything, in order."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest

from prefactor_core.transport import BrokerError, DeadLetterEnd, DeadLetterMessage
from prefactor_rabbitmq import answers as answers_module
from prefactor_rabbitmq import dead_letters
from tests.support.brokers.rabbitmq_cluster import RabbitCluster
from tests.transports.rabbitmq.rig import RabbitRig, cut, own
from tests.transports.rig import read, until

_COUNT = 300
_ALL = [b"%03d" % number for number in range(_COUNT)]
_A_WHILE = 0.5
"""Seconds in which a reader that does not wait has read something."""


@pytest.fixture
async def full(rig: RabbitRig) -> RabbitRig:
    """Store dead letters, as many as the broker does not take back in order."""
    await rig.store_letters(_ALL)
    return rig


async def _begin(end: DeadLetterEnd, count: int) -> AsyncGenerator[DeadLetterMessage]:
    """Read the first letters."""
    reading = end.read()
    assert isinstance(reading, AsyncGenerator)
    assert [(await anext(reading)).data for _ in range(count)] == _ALL[:count]
    return reading


async def _list(rig: RabbitRig) -> list[bytes]:
    return [dead.data for dead in await rig.all_dead()]


async def _waiting(rig: RabbitRig) -> "asyncio.Task[list[bytes]]":
    """Return a reader that has to wait for another one."""
    after = asyncio.create_task(_list(rig))
    await asyncio.sleep(_A_WHILE)
    assert not after.done()
    return after


async def _replay(rig: RabbitRig) -> list[bytes]:
    """Publish everything once more, one by one, as a replay does."""
    publishing = rig.publishing()
    async with rig.dead_letters() as end:
        all_dead = [dead async for dead in end.read()]
        for dead in all_dead:
            await publishing.publish(0, [dead.data])
            await end.remove([dead])
    return [dead.data for dead in all_dead]


async def _purge(rig: RabbitRig) -> list[bytes]:
    async with rig.dead_letters() as end:
        all_dead = [dead async for dead in end.read()]
        await end.remove(all_dead)
    return [dead.data for dead in all_dead]


@pytest.mark.parametrize("limited", [True, False])
async def test_a_reader_waits_until_the_one_before_is_disconnected(full: RabbitRig, *, limited: bool) -> None:
    before = full.dead_letters()
    reading = await _begin(before, 100)
    if limited:
        await reading.aclose()
    after = await _waiting(full)
    assert await before.count() == _COUNT - 100
    if not limited:
        assert [dead.data async for dead in reading] == _ALL[100:]
        assert not after.done()
    await before.disconnect()
    assert await after == _ALL


async def test_lists_at_once_see_everything_until_it_is_removed(full: RabbitRig) -> None:
    assert await asyncio.gather(*(_list(full) for _ in range(3))) == [_ALL] * 3
    assert await _purge(full) == _ALL
    assert await _list(full) == [], "what was removed stays removed, however soon its reader ends"


@pytest.mark.parametrize("other", [_list, _purge, _replay])
async def test_nobody_takes_anything_from_a_replay(
    full: RabbitRig, other: Callable[[RabbitRig], Awaitable[list[bytes]]]
) -> None:
    replay = asyncio.create_task(_replay(full))

    async def begun() -> bool:
        return await full.depth("dead") < _COUNT

    await until(begun, "the replay to begin")
    assert await other(full) == []
    assert await replay == _ALL
    assert await full.drain() == _ALL


async def test_who_waits_for_a_reader_that_is_lost_sees_everything(full: RabbitRig) -> None:
    """As for a reader that is killed: its connection ends."""
    for count in (1, 100, 299, 300):
        end = full.dead_letters()
        await _begin(end, count)
        after = await _waiting(full)
        cut(end)
        assert await after == _ALL, count


async def test_an_end_reads_again_after_a_lost_connection(full: RabbitRig) -> None:
    async with full.dead_letters() as end:
        await _begin(end, 100)
        cut(end)
        with pytest.raises(BrokerError):
            await end.remove([])
        assert [dead.data async for dead in end.read()] == _ALL
        after = await _waiting(full)
    assert await after == _ALL


async def test_who_waits_for_too_long_hears_why(full: RabbitRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "WAIT_SECONDS", 1.0)
    before = full.dead_letters()
    for count in (100, 200):  # with dead letters left, and with none: it reads from an empty queue then
        reading = before.read()
        assert isinstance(reading, AsyncGenerator)
        all_dead = [await anext(reading) for _ in range(count)]
        with pytest.raises(BrokerError, match=r"another command is .*amqp://.*try again"):
            await _list(full)
        await before.remove(all_dead)
    with pytest.raises(BrokerError, match="another command"):  # it holds no dead letter, and the lock
        await _list(full)
    await before.disconnect()
    assert await _list(full) == []


async def test_a_stranger_that_keeps_letters_stops_nobody_and_is_not_overlooked(
    full: RabbitRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dead_letters, "LOOK_SECONDS", 0.5)
    monkeypatch.setattr(dead_letters, "RETURN_SECONDS", 0.5)
    async with full.channel() as channel:
        await channel.basic_get(f"{full.prefix}.dead")
        assert await _list(full) == _ALL[1:]
        assert "1 dead letters may be missing: another reader" in caplog.text
        assert await _purge(full) == _ALL[1:]
    assert await _list(full) == _ALL[:1]


async def test_dead_letters_are_read_though_the_node_of_their_last_reader_is_down(
    rabbit_cluster: RabbitCluster, amqp_prefix: str
) -> None:
    queue = f"{amqp_prefix}.dead"
    first = rabbit_cluster.nodes[0]
    rig = RabbitRig(first.url, amqp_prefix)
    all_dead = _ALL[:100]
    publishing = await rig.store_letters(all_dead)
    leader = await asyncio.to_thread(rabbit_cluster.leader_of, queue)
    node = next(node for node in rabbit_cluster.nodes if node is not leader)
    await _begin(rig.dead_letters(url=node.url), 50)
    await asyncio.to_thread(node.kill)
    async with rig.dead_letters("timeout=10", url=leader.url) as end:
        found = [dead async for dead in end.read()]
        assert [dead.data for dead in found] == all_dead
        await end.remove(found)
        assert await end.count() == 0
    await publishing.disconnect()


async def test_a_lost_connection_and_a_lost_partition_are_said(rig: RabbitRig) -> None:
    await rig.publish(["a", "b"])
    end = rig.consuming()
    owner = await own(end)
    messages = await read(owner, 2)
    assert await owner.dead_letter([(messages[0], b"kept")]) == []
    cut(end)
    await owner.release()
    assert await owner.dead_letter([(messages[1], b"record")]) == messages[1:], "no record is stored"
    assert await _purge(rig) == [b"kept"]
    answered = rig.dead_letters()
    address = await answered.open_answers()
    cut(answered)
    with pytest.raises(BrokerError, match="lost"):
        await answered.answers()
    assert await answered.open_answers() != address
    assert await answered.answers() == []
    await answered.disconnect()
    with pytest.raises(BrokerError):
        await answered.answers()


async def test_a_deleted_store_is_made_again_and_nothing_is_lost(rig: RabbitRig) -> None:
    await rig.publish(["a", "b"])
    owner = await own(rig.consuming())
    first, second = await read(owner, 2)
    assert await owner.dead_letter([(first, b"lost with the queue")]) == []
    await rig.delete("dead")
    all_dead = [(second, b"record")]
    with pytest.raises(BrokerError, match="routed"):
        await owner.dead_letter(all_dead)
    assert owner.held
    assert await owner.dead_letter(all_dead) == []
    assert await _list(rig) == [b"record"]


async def test_answers_that_are_not_taken_are_bounded(
    rig: RabbitRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers_module, "MOST_ANSWERS", 5)
    monkeypatch.setattr(answers_module, "_PREFETCH", 2)
    worker, end = rig.consuming(), rig.dead_letters()
    address = await end.open_answers()
    assert address is not None
    for number in range(30):
        await worker.answer(address, [b"%d" % number])
    taken: list[bytes] = []
    async with asyncio.timeout(180):
        while len(taken) < 7:
            taken += await end.answers()
    assert taken == [b"%d" % number for number in (0, 1, 25, 26, 27, 28, 29)]
    assert await end.answers() == []
