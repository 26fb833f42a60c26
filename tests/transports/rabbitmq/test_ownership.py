"""Ownership ends with a connection, a silence, or a message that nobody settles; its successor goes on."""

import asyncio
import logging

import pytest
from aiormq.channel import Channel

from prefactor_core.transport import BrokerError, process_name
from prefactor_rabbitmq import partition as partition_module
from tests.support.brokers.proxy import Proxy
from tests.transports.rabbitmq.rig import RabbitRig, cut, own, until_left
from tests.transports.rig import eventually, names, read, until


async def test_a_cut_connection_is_a_loss_at_once_and_resumes_unaided(rig: RabbitRig) -> None:
    await rig.publish("abcd")
    end = rig.consuming()
    owner = await own(end)
    messages = await read(owner, 4)
    assert await owner.settle(messages[:1]) == []
    await until_left(end, 3)
    reading = asyncio.create_task(owner.read(1, 1))
    await asyncio.sleep(0)
    cut(end)
    with pytest.raises(BrokerError):
        await reading
    with pytest.raises(BrokerError):
        await owner.begin(messages[1])
    assert not owner.held
    assert list(await owner.settle(messages[1:])) == messages[1:]
    successor = await own(end)
    left = await read(successor, 3)
    assert names(left) == ["b", "c", "d"]
    for lost in (owner, successor):  # neither settles what the owner before it was given
        assert list(await lost.settle(messages[1:])) == messages[1:]
    assert not await successor.settle(left)
    assert not await successor.settle(left)
    await until_left(end, 0)


async def test_a_loop_that_stood_still_is_not_the_owner_whatever_the_clock_says_later(rig: RabbitRig) -> None:
    ahead = [0.0]
    end = rig.consuming("heartbeat=10", clock=lambda: asyncio.get_running_loop().time() + ahead[-1])
    owner = await own(end)
    for seconds, held in ((9.0, True), (30.0, False), (0.0, False)):
        ahead.append(seconds)
        assert owner.held is held, seconds
    assert (await own(end)).held


async def test_a_silent_broker_ends_ownership_before_it_gives_the_partition_away(rig: RabbitRig) -> None:
    await rig.publish("abc")
    async with Proxy.before(rig.url) as proxy:
        end = rig.consuming("heartbeat=1", url=proxy.url(rig.url))
        owner = await own(end)
        messages = await read(owner, 3)
        other = rig.consuming()
        proxy.swallow()

        async def lost() -> bool:
            assert not (owner.held and await other.acquire(0, 10)), "two owners"
            return not owner.held

        await until(lost, "the end of the ownership")
        with pytest.raises(BrokerError):
            await owner.read(1, 1)
        assert list(await owner.settle(messages)) == messages
        successor = await own(other)
        assert names(await read(successor, 3)) == ["a", "b", "c"]
        await end.disconnect()


async def test_a_queue_deleted_under_its_owner_is_said_loudly_and_made_again(rig: RabbitRig) -> None:
    await rig.publish("ab")
    end = rig.consuming()
    owner = await own(end)
    messages = await read(owner, 2)
    await rig.delete("0")
    await eventually(lambda: not owner.held, "the loss")
    assert "was deleted" in owner.loss.reason
    assert owner.loss.serious
    assert list(await owner.settle(messages)) == messages
    again = await own(end)
    await rig.publish("c")
    assert names(await read(again, 1)) == ["c"]


async def test_whatever_an_owner_asks_for_its_successors_get_in_order(rig: RabbitRig) -> None:
    """An owner that has less at a time than the one before puts what came back out of order."""
    await rig.publish(map(str, range(600)))
    for items in (8_192, 1):
        end = rig.consuming()
        owner = await end.acquire(0, items)
        assert owner is not None
        await read(owner, min(items, 500))
        await end.disconnect()
    end = rig.consuming()
    assert names(await read(await own(end), 500)) == [str(number) for number in range(500)]
    await end.disconnect()
    assert [data.decode() for data in await rig.drain()] == [str(number) for number in range(600)]


async def test_large_messages_are_held_a_few_at_a_time(
    rig: RabbitRig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition_module, "LEAST_HELD", 0)
    caplog.set_level(logging.DEBUG, "prefactor_rabbitmq")
    await rig.publish([f"{number:02}" + "x" * 9_998 for number in range(40)])
    end = rig.consuming()
    end._memory.read_bytes = 10_000
    seen: list[str] = []
    most = owners = 0
    while len(seen) < 40:
        owner = await own(end)
        owners += 1
        try:
            while len(seen) < 40:
                messages = await owner.read(40, 10_000)
                most = max(most, owner.inbox.bytes)
                assert await end.backlog() == 40 - len(seen)
                refused = await owner.settle(messages)
                seen += [message.data[:2].decode() for message in messages if message not in refused]
        except BrokerError:
            continue
    assert seen == [f"{number:02}" for number in range(40)]
    assert most <= 40_000
    assert 4 < owners < 20
    assert any("large" in record.getMessage() for record in caplog.records)


async def test_what_is_unsettled_for_too_long_goes_back(
    rig: RabbitRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition_module, "UNSETTLED_SECONDS", 0.5)
    await rig.publish("ab")
    end = rig.consuming("heartbeat=1")
    for _ in range(4):  # and this process holds it against nobody
        owner = await own(end)
        assert not owner.isolated
        assert names(await read(owner, 2)) == ["a", "b"]
        await eventually(lambda owner=owner: not owner.held, "the loss")  # type: ignore[misc]


async def test_a_consumer_that_the_broker_forgot_is_noticed(
    rig: RabbitRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition_module, "READ_SECONDS", 0.2)
    monkeypatch.setattr(partition_module, "IDLE_READS", 2)
    end = rig.consuming()
    owner = await own(end)
    assert [await owner.read(1, 1) for _ in range(4)] == [[]] * 4
    assert owner.held
    assert isinstance(owner._channel, Channel)
    (tag,) = owner._channel.consumers
    await owner._channel.basic_cancel(tag)
    await rig.publish("a")
    with pytest.raises(BrokerError, match="waiting"):
        for _ in range(5):
            assert await owner.read(1, 1) == []
    assert names(await read(await own(end), 1)) == ["a"]


async def test_states_and_waiting(rig: RabbitRig) -> None:
    await rig.publish("abc", 0)
    await rig.publish("de", 1)
    end, other = rig.consuming(), rig.consuming()
    assert await end.backlog() == 5
    owner = await own(end, 0)
    messages = await read(owner, 3)
    assert await end.backlog() == 5
    await owner.settle(messages[:2])
    await until_left(end, 3)
    first, second = await end.states()
    assert (first.number, first.owner, first.dead, second.owner) == (0, process_name(), None, None)
    assert second.backlog == 2
    assert [state.owner for state in await other.states()] == ["", None]
    await rig.delete("0")
    assert [state.backlog for state in await other.states()] == [0, 2]


async def test_a_cancelled_acquire_leaves_the_partition_free(rig: RabbitRig) -> None:
    end, other = rig.consuming(), rig.consuming()
    await end.partitions()
    for turns in range(12):
        task = asyncio.create_task(end.acquire(0, 10))
        for _ in range(turns * 2):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            got = task.result()
            assert got is not None
            await got.release()
        taken = await own(other)
        await taken.release()
