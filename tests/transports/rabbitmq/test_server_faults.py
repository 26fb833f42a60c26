"""A server that is out of memory, that does not answer, that does not let one do things."""

import asyncio
import logging

import pytest

from prefactor_core.transport import BrokerError
from prefactor_rabbitmq.broker import RabbitBroker
from tests.support.brokers.rabbitmq_server import RabbitServer
from tests.transports.rabbitmq.rig import RabbitRig, until_left
from tests.transports.rig import names, own, persistently, read


async def test_an_alarm_stops_publishing_and_nothing_else(
    own_rabbit: RabbitRig, rabbit_server: RabbitServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "prefactor_rabbitmq")
    broker = own_rabbit.broker("timeout=1")
    publishing, consuming = own_rabbit.publishing("timeout=1"), own_rabbit.consuming("timeout=1")
    await publishing.publish(0, [b"a", b"b"])
    owner = await own(consuming)
    messages = await read(owner, 2)
    await own_rabbit.publish("de", 1)
    leaving = await own(own_rabbit.consuming("timeout=60"), 1)
    await read(leaving, 2)
    await asyncio.to_thread(rabbit_server.memory_alarm, on=True)
    for _ in range(2):
        async with asyncio.timeout(12):
            with pytest.raises(BrokerError, match="within 1 s") as caught:
                await publishing.publish(0, [b"c"])
        assert caught.value.confirmed == 0
    with pytest.raises(BrokerError):
        await owner.dead_letter([(messages[1], b"record")])
    assert owner.held
    assert not await owner.settle(messages[:1])
    (problem,) = await broker.check()
    assert "alarm" in problem
    async with asyncio.timeout(12):
        await leaving.release()  # the note is not confirmed
    assert any("told nothing: no answer" in record.getMessage() for record in caplog.records)
    assert names(await read(await own(own_rabbit.consuming(), 1), 2)) == ["d", "e"]
    # The server acts on a settlement whatever its alarm says: it frees memory.
    await until_left(consuming, 1)
    async with asyncio.timeout(12):
        await own_rabbit.publishing("timeout=1").disconnect()
        await publishing.disconnect()
    await asyncio.to_thread(rabbit_server.memory_alarm, on=False)
    await persistently(lambda: publishing.publish(0, [b"c"]))
    assert not await owner.dead_letter([(messages[1], b"record")])


async def test_a_frozen_server_hangs_nobody(own_rabbit: RabbitRig, rabbit_server: RabbitServer) -> None:
    broker = own_rabbit.broker("timeout=1")
    publishing, consuming = own_rabbit.publishing("timeout=1"), own_rabbit.consuming("timeout=1")
    await publishing.publish(0, [b"a"])
    await own(consuming)
    await asyncio.to_thread(rabbit_server.freeze)
    async with asyncio.timeout(25):
        for call in (publishing.publish(0, [b"b"]), consuming.fleet(), broker.check()):
            with pytest.raises(BrokerError):
                await call
        await consuming.disconnect()
        await publishing.disconnect()


async def test_vhosts_and_permissions(own_rabbit: RabbitRig, rabbit_server: RabbitServer) -> None:
    user, vhost = own_rabbit.prefix, f"{own_rabbit.prefix}/x"

    async def ctl(*words: str) -> None:
        await asyncio.to_thread(rabbit_server.ctl, *words)

    async def permit(configures: str, writes: str, reads: str) -> None:
        await ctl("set_permissions", "-p", vhost, user, configures, writes, reads)

    async def says(words: str) -> bool:
        return any(words in problem for problem in await broker.check())

    await ctl("add_vhost", vhost)
    await ctl("add_user", user, "pa/ss@")
    await permit("^$", ".*", ".*")
    host = own_rabbit.url.rpartition("@")[2].rstrip("/")
    url = f"amqp://{user}:pa%2Fss%40@{host}/{vhost.replace('/', '%2F')}?partitions=1"
    broker = RabbitBroker(url)
    assert await says("may not declare")
    end = broker.publishing()
    with pytest.raises(BrokerError, match="grant configure"):
        await end.publish(0, [b"x"])
    for writes, reads, verb in (("^$", ".*", "bind"), (".*", "^$", "read")):
        await permit(".*", writes, reads)
        assert await says(f"may not {verb} what begins with prefactor."), verb
    await permit(".*", "^prefactor.*", ".*")
    assert await says("dead letters need")
    await permit(".*", ".*", ".*")
    assert await broker.check() == []
    await end.publish(0, [b"x"])
    await end.disconnect()
    with pytest.raises(BrokerError, match="Login was refused") as caught:
        await RabbitBroker(url.replace("pa%2Fss%40", "wrong")).check()
    assert "wrong" not in str(caught.value)
    await ctl("delete_vhost", vhost)
    await ctl("delete_user", user)
