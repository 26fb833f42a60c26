"""A server that is killed, that is out of memory, that does not answer, that does not let one do things."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable

import pytest

from prefactor_core.exceptions import BrokerError
from prefactor_rabbitmq.broker import RabbitBroker
from prefactor_rabbitmq.handover import LEAVE_SECONDS
from tests.support.brokers.rabbitmq_server import RabbitServer
from tests.transports.rabbitmq.rig import Rig, names, own, read, until


@pytest.fixture
async def own_rig(rabbit_server: RabbitServer, amqp_prefix: str) -> AsyncIterator[Rig]:
    """Brokers on a server that may be broken."""
    rig = Rig(rabbit_server.url, amqp_prefix)
    yield rig
    await asyncio.to_thread(rabbit_server.heal)
    await rig.disconnect()


async def test_what_was_confirmed_outlives_the_server(own_rig: Rig, rabbit_server: RabbitServer) -> None:
    publishing, consuming = own_rig.publishing(), own_rig.consuming()
    await publishing.publish(0, [b"%d" % number for number in range(300)])
    owner = await own(consuming)
    messages = await read(owner, 100)
    assert not await owner.settle(messages[:50])
    await consuming.fleet()
    await until(lambda: _is(consuming.waiting(), 250), "the settled ones to go")
    await asyncio.to_thread(rabbit_server.kill)
    with pytest.raises(BrokerError):
        await publishing.publish(0, [b"300"])
    assert not owner.held
    assert list(await owner.settle(messages[50:])) == messages[50:]
    with pytest.raises(BrokerError):
        await consuming.fleet()
    await asyncio.to_thread(rabbit_server.start)
    await until(lambda: _done(publishing.publish(0, [b"300"])), "the server to be back")
    assert (await consuming.fleet()).size == 1
    left = await read(await own(consuming), 251)
    assert names(left) == [str(number) for number in range(50, 301)]


async def test_an_alarm_stops_publishing_and_nothing_else(own_rig: Rig, rabbit_server: RabbitServer) -> None:
    broker = own_rig.broker(timeout=1)
    publishing, consuming = own_rig.publishing(broker), own_rig.consuming(broker)
    await publishing.publish(0, [b"a", b"b"])
    owner = await own(consuming)
    messages = await read(owner, 2)
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(rabbit_server.memory_alarm, on=True)
    for _ in range(2):
        start = loop.time()
        with pytest.raises(BrokerError, match="within 1 s") as caught:
            await publishing.publish(0, [b"c"])
        assert caught.value.confirmed == 0
        assert loop.time() - start < 4
    with pytest.raises(BrokerError):
        await owner.dead_letter([(messages[1], b"record")])
    assert owner.held
    assert not await owner.settle(messages[:1])
    (problem,) = await broker.check()
    assert "alarm" in problem
    # The server acts on a settlement whatever its alarm says: it frees memory.
    await until(lambda: _is(consuming.waiting(), 1), "the settled one to go")
    start = loop.time()
    await own_rig.publishing(broker).disconnect()
    await publishing.disconnect()
    assert loop.time() - start < 5
    await asyncio.to_thread(rabbit_server.memory_alarm, on=False)
    await until(lambda: _done(publishing.publish(0, [b"c"])), "the alarm to end")
    assert not await owner.dead_letter([(messages[1], b"record")])


async def test_an_alarm_keeps_no_partition_from_being_handed_over(
    own_rig: Rig, rabbit_server: RabbitServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "prefactor_rabbitmq")
    await own_rig.publish("ab")
    owner = await own(own_rig.consuming())
    await read(owner, 2)
    await asyncio.to_thread(rabbit_server.memory_alarm, on=True)
    loop = asyncio.get_running_loop()
    start = loop.time()
    await owner.release()  # the note is not confirmed
    assert loop.time() - start < LEAVE_SECONDS + 2
    assert any("told nothing: no answer" in record.getMessage() for record in caplog.records)
    assert names(await read(await own(own_rig.consuming()), 2)) == ["a", "b"]


async def test_a_frozen_server_hangs_nobody(own_rig: Rig, rabbit_server: RabbitServer) -> None:
    broker = own_rig.broker(timeout=1)
    publishing, consuming = own_rig.publishing(broker), own_rig.consuming(broker)
    await publishing.publish(0, [b"a"])
    await own(consuming)
    await asyncio.to_thread(rabbit_server.freeze)
    loop = asyncio.get_running_loop()
    start = loop.time()
    with pytest.raises(BrokerError):
        await publishing.publish(0, [b"b"])
    with pytest.raises(BrokerError):
        await consuming.fleet()
    with pytest.raises(BrokerError):
        await broker.check()
    await consuming.disconnect()
    await publishing.disconnect()
    assert loop.time() - start < 12


async def test_vhosts_and_permissions(own_rig: Rig, rabbit_server: RabbitServer) -> None:
    vhost = f"{own_rig.prefix}/x"

    def set_up() -> None:
        rabbit_server.ctl("add_vhost", vhost)
        rabbit_server.ctl("add_user", own_rig.prefix, "pa/ss@")
        rabbit_server.ctl("set_permissions", "-p", vhost, own_rig.prefix, "^$", ".*", ".*")

    await asyncio.to_thread(set_up)
    host = own_rig.url.rpartition("@")[2].rstrip("/")
    url = f"amqp://{own_rig.prefix}:pa%2Fss%40@{host}/{vhost.replace('/', '%2F')}?partitions=1"
    broker = RabbitBroker(url)
    assert any("may not declare" in problem for problem in await broker.check())
    end = broker.publishing()
    with pytest.raises(BrokerError, match="grant configure"):
        await end.publish(0, [b"x"])
    for writes, reads, verb in (("^$", ".*", "bind"), (".*", "^$", "read")):
        await asyncio.to_thread(
            rabbit_server.ctl, "set_permissions", "-p", vhost, own_rig.prefix, ".*", writes, reads
        )
        assert any(f"may not {verb} what begins with prefactor." in one for one in await broker.check())
    await asyncio.to_thread(
        rabbit_server.ctl, "set_permissions", "-p", vhost, own_rig.prefix, ".*", "^prefactor.*", ".*"
    )
    assert any("dead letters need" in problem for problem in await broker.check())
    await asyncio.to_thread(
        rabbit_server.ctl, "set_permissions", "-p", vhost, own_rig.prefix, ".*", ".*", ".*"
    )
    assert await broker.check() == []
    await end.publish(0, [b"x"])
    await end.disconnect()
    with pytest.raises(BrokerError, match="Login was refused") as caught:
        await RabbitBroker(url.replace("pa%2Fss%40", "wrong")).check()
    assert "wrong" not in str(caught.value)
    await asyncio.to_thread(rabbit_server.ctl, "delete_vhost", vhost)
    await asyncio.to_thread(rabbit_server.ctl, "delete_user", own_rig.prefix)


async def _is(answer: Awaitable[int], expected: int) -> bool:
    return await answer == expected


async def _done(call: Awaitable[None]) -> bool:
    await call
    return True
