"""Servers that fill up, forget, restart, hang and cut wires."""

import asyncio
import logging
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from prefactor_core.transport import BrokerError
from tests.support.brokers.redis_server import RedisServer
from tests.transports.redis.rig import RedisRig, command
from tests.transports.rig import eventually, names, own, read, until

MakeRig = Callable[[str], RedisRig]
_STEPS = 60
"""Turns of the event loop that one call and a part of the next one take."""


async def test_no_cancellation_is_swallowed(rig: RedisRig) -> None:
    end = rig.dead_letters()
    await end.count()

    async def ask_for_ever() -> None:
        while True:
            await end.count()

    swallowed: list[int] = []
    for steps in range(_STEPS):
        asking = asyncio.create_task(ask_for_ever())
        for _ in range(steps):
            await asyncio.sleep(0)
        asking.cancel()
        done, _ = await asyncio.wait([asking], timeout=60)
        if not done:
            swallowed.append(steps)
            while not asking.done():
                asking.cancel()
                await asyncio.sleep(0.01)
    assert swallowed == []


async def test_a_full_server_is_drained(own_redis: RedisRig, redis_server: RedisServer) -> None:
    publisher, consumer = own_redis.publishing(), own_redis.consuming("lease=30")
    await publisher.partitions()
    await publisher.publish(0, [b"%d" % number for number in range(10)])
    partition = await own(consumer)
    await command(redis_server, "CONFIG", "SET", "maxmemory", "1")

    with pytest.raises(BrokerError, match="is full") as raised:
        await publisher.publish(0, [b"x", b"y"])
    assert raised.value.confirmed == 0
    assert await publisher.partitions() == 16
    assert await consumer.backlog() == 10  # all or nothing
    found = await read(partition, 10)
    assert await partition.settle(found[:5]) == []
    assert await partition.dead_letter([(message, b"record") for message in found[5:8]]) == []
    await consumer.fleet()
    assert len([dead async for dead in own_redis.dead_letters().read()]) == 3
    assert (await consumer.states())[0].backlog == 2
    # Its owner is killed while it is full: a successor takes over, and owners renew.
    await command(redis_server, "DEL", own_redis.key("lease"))
    successor = await own(own_redis.consuming("lease=3"))
    until = asyncio.get_running_loop().time() + 4
    await eventually(lambda: asyncio.get_running_loop().time() > until, "more than a lease is over")
    assert successor.held
    assert await successor.settle(await read(successor, 2)) == []
    await successor.release()

    await command(redis_server, "CONFIG", "SET", "maxmemory", "0")
    await publisher.publish(0, [b"fits"])


async def test_an_emptied_server_is_noticed_loudly(own_redis: RedisRig, redis_server: RedisServer) -> None:
    publisher, consumer = own_redis.publishing("partitions=3"), own_redis.consuming("lease=6")
    await publisher.partitions()
    await consumer.partitions()
    await publisher.publish(0, [b"1", b"2"])
    partition = await own(consumer)
    await read(partition, 1)
    await command(redis_server, "FLUSHALL")
    await eventually(lambda: not partition.held, "the owner knows")
    assert "has lost its stream" in partition.loss.reason
    assert partition.loss.serious

    await publisher.publish(0, [b"3"])
    partition = await own(consumer)
    assert names(await read(partition, 1)) == ["3"]
    await consumer.fleet()
    assert await own_redis.publishing("partitions=7").partitions() == 3  # recorded again


async def test_a_stream_that_went_back_while_the_lease_stayed(
    own_redis: RedisRig, redis_server: RedisServer
) -> None:
    consumer = own_redis.consuming("lease=30")
    await own_redis.publish("12")
    partition = await own(consumer)
    await read(partition, 2)
    stream = own_redis.key("operations")
    await command(redis_server, "DEL", stream)
    await command(redis_server, "XADD", stream, "1-1", "e", "from long ago")
    await eventually(lambda: not partition.held, "the owner knows")
    assert "has lost its stream" in partition.loss.reason
    await partition.release()  # so that nobody waits for it to run out
    again = await until(lambda: consumer.acquire(0, 100), "the partition", 25)
    assert names(await read(again, 1)) == ["from long ago"]


async def test_a_restart_under_load(own_redis: RedisRig, redis_server: RedisServer) -> None:
    publisher = own_redis.publishing("timeout=2")
    published: list[bytes] = []
    failures = 0
    enough = asyncio.Event()

    async def publish_all() -> None:
        nonlocal failures
        while not enough.is_set():
            batch = [b"%d" % number for number in range(len(published), len(published) + 20)]
            try:
                await publisher.publish(0, batch)
            except BrokerError:
                failures += 1
                await asyncio.sleep(0.02)
            else:
                published.extend(batch)

    load = asyncio.create_task(publish_all())
    await eventually(lambda: len(published) > 200, "some are published")
    await asyncio.to_thread(redis_server.kill)
    await eventually(lambda: failures > 0, "publishing fails")
    before = len(published)
    await asyncio.to_thread(redis_server.start)
    await eventually(lambda: len(published) > before + 200, "publishing works again")
    enough.set()
    await load

    partition = await own(own_redis.consuming())
    found: list[bytes] = []
    while some := await partition.read(1_000, 1_000_000):
        found += [message.data for message in some]
    first = list(dict.fromkeys(found))  # what was sent again counts where it came first
    assert first == published


async def test_connections_that_are_cut(own_redis: RedisRig, redis_server: RedisServer) -> None:
    publisher, consumer = own_redis.publishing(), own_redis.consuming()
    await publisher.publish(0, [b"1"])
    partition = await own(consumer)
    found = await read(partition, 1)
    reading = asyncio.create_task(partition.read(1, 100))
    await eventually(lambda: "cmd=xread" in str(redis_server.command("CLIENT", "LIST")), "it reads")
    await command(redis_server, "CLIENT", "KILL", "TYPE", "normal")
    with pytest.raises(BrokerError, match="cannot be reached"):
        await reading
    assert partition.held
    await publisher.publish(0, [b"2"])
    assert names(await read(partition, 1)) == ["2"]
    assert await partition.settle(found) == []


async def test_a_server_that_hangs(own_redis: RedisRig, redis_server: RedisServer) -> None:
    publisher, consumer = own_redis.publishing("timeout=0.3"), own_redis.consuming("timeout=0.3&lease=2")
    await publisher.partitions()
    await publisher.publish(0, [b"1"])
    partition = await own(consumer)
    first = await read(partition, 1)
    redis_server.freeze()
    calls = [
        publisher.publish(0, [b"2"]),
        publisher.partitions(),
        consumer.fleet(),
        consumer.backlog(),
        consumer.acquire(1, 10),
        partition.settle(first),
        partition.read(10, 100),
    ]
    async with asyncio.timeout(12):
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(outcome, BrokerError) for outcome in outcomes), outcomes
        assert "in time" in str(outcomes[0])
        await eventually(lambda: not partition.held, "the lease is over")
        await partition.release()
    redis_server.thaw()
    # The answer to this one was lost; what it took is found, not waited for.
    assert await consumer.acquire(1, 10) is not None
    await publisher.publish(0, [b"3"])
    assert (await read(await own(consumer), 3))[-1].data == b"3"

    more = own_redis.publishing(), own_redis.consuming()  # which wait for longer
    await more[0].publish(0, [b"4"])
    await own(more[1], 2)
    await more[1].fleet()
    redis_server.freeze()
    async with asyncio.timeout(12):
        for end in more:
            await end.disconnect()


async def test_replicas_that_are_missing(own_redis: RedisRig) -> None:
    publisher = own_redis.publishing("replicas=1&timeout=5")
    with pytest.raises(BrokerError, match="0 replicas of 1") as raised:
        await publisher.publish(0, [b"1"])
    assert raised.value.confirmed == 0


async def test_a_password_that_is_wrong(
    make_redis_server: Callable[..., RedisServer], rig_at: MakeRig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = await asyncio.to_thread(make_redis_server, "requirepass hunter2")
    host = server.url.removeprefix("redis://")
    for credentials, good in ((":hunter2@", True), (":swordfish@", False), ("", False)):
        rig = rig_at(f"redis://{credentials}{host}")
        if good:
            await rig.publishing().publish(0, [b"1"])
            await own(rig.consuming())
        else:
            with pytest.raises(BrokerError, match="user and password") as raised:
                await rig.publishing().publish(0, [b"1"])
            assert "swordfish" not in str(raised.value)
    assert "hunter2" not in caplog.text
    assert "swordfish" not in caplog.text


def make_certificate(certificate: Path, key: Path) -> None:
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    words = [*command.split(), "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key)]
    subprocess.run([*words, "-out", str(certificate)], check=True, capture_output=True)


async def test_tls(
    make_redis_server: Callable[..., RedisServer],
    rig_at: MakeRig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    await asyncio.to_thread(make_certificate, certificate, key)
    server = await asyncio.to_thread(make_redis_server)
    options = {"tls-cert-file": certificate, "tls-key-file": key, "tls-ca-cert-file": certificate}
    port = int(server.port) + 1
    words = [str(word) for option in options.items() for word in option]
    await command(server, "CONFIG", "SET", *words, "tls-auth-clients", "no", "tls-port", str(port))
    rig = rig_at(f"rediss://localhost:{port}")
    with pytest.raises(BrokerError):  # nobody has said that this one can be trusted
        await rig.publishing().publish(0, [b"1"])
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    await rig.publish("1")
    assert names(await read(await own(rig.consuming()), 1)) == ["1"]
