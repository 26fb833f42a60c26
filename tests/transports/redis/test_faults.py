"""Servers that fill up, forget, restart, hang and cut wires."""

import asyncio
import logging
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from prefactor_core.exceptions import BrokerError
from tests.support.brokers.redis_server import RedisServer
from tests.transports.redis.conftest import Ends, bodies, eventually, owned, read

MakeEnds = Callable[[str], Ends]


def server_ends(ends_at: MakeEnds, server: RedisServer) -> Ends:
    return ends_at(server.url)


async def command(server: RedisServer, *words: str) -> object:
    return await asyncio.to_thread(server.command, *words)


async def test_a_full_server_is_drained(redis_server: RedisServer, ends_at: MakeEnds) -> None:
    ends = server_ends(ends_at, redis_server)
    publisher, consumer = ends.publishing(), ends.consuming("lease=1")
    await publisher.partitions()
    await publisher.publish(0, [b"%d" % number for number in range(10)])
    partition = await owned(consumer)
    await command(redis_server, "CONFIG", "SET", "maxmemory", "1")

    with pytest.raises(BrokerError, match="is full") as raised:
        await publisher.publish(0, [b"x", b"y"])
    assert raised.value.confirmed == 0
    assert await publisher.partitions() == 16
    assert await consumer.waiting() == 10  # all or nothing
    found = await read(partition, 10)
    assert await partition.settle(found[:5]) == []
    assert await partition.dead_letter([(message, b"record") for message in found[5:8]]) == []
    await consumer.fleet()
    assert len([letter async for letter in ends.dead_letters().read()]) == 3
    assert (await consumer.states())[0].waiting == 2
    # Its owner is killed while it is full: a successor takes over, and owners renew.
    await command(redis_server, "DEL", f"{{{ends.prefix}:0}}:lease")
    successor = await owned(ends.consuming("lease=1"))
    until = asyncio.get_running_loop().time() + 1.5
    await eventually(lambda: asyncio.get_running_loop().time() > until, "more than a lease is over")
    assert successor.held
    assert await successor.settle(await read(successor, 2)) == []
    await successor.release()

    await command(redis_server, "CONFIG", "SET", "maxmemory", "0")
    await publisher.publish(0, [b"fits"])


async def test_scripts_that_the_server_has_forgotten(redis_server: RedisServer, ends_at: MakeEnds) -> None:
    ends = server_ends(ends_at, redis_server)
    publisher, consumer, dead = ends.publishing(), ends.consuming("lease=1"), ends.dead_letters()
    await publisher.partitions()
    partition = await owned(consumer)
    for _ in range(3):
        await command(redis_server, "SCRIPT", "FLUSH")
        await publisher.publish(0, [b"1", b"2"])
        found = await read(partition, 2)
        await command(redis_server, "SCRIPT", "FLUSH")
        assert await partition.settle(found[:1]) == []
        await command(redis_server, "SCRIPT", "FLUSH")
        assert await partition.dead_letter([(found[1], b"record")]) == []
        await command(redis_server, "SCRIPT", "FLUSH")
        assert len(await consumer.states()) == 16
        await command(redis_server, "SCRIPT", "FLUSH")
        await dead.remove([letter async for letter in dead.read()])
        assert partition.held


async def test_an_emptied_server_is_noticed_loudly(redis_server: RedisServer, ends_at: MakeEnds) -> None:
    ends = server_ends(ends_at, redis_server)
    publisher, consumer = ends.publishing("partitions=3"), ends.consuming("lease=2")
    await publisher.partitions()
    await consumer.partitions()
    await publisher.publish(0, [b"1", b"2"])
    partition = await owned(consumer)
    await read(partition, 1)
    await command(redis_server, "FLUSHALL")
    await eventually(lambda: not partition.held, "the owner knows")
    assert "has lost its stream" in partition.loss.reason
    assert partition.loss.serious

    await publisher.publish(0, [b"3"])
    partition = await owned(consumer)
    assert bodies(await read(partition, 1)) == [b"3"]
    await consumer.fleet()
    assert await ends.publishing("partitions=7").partitions() == 3  # recorded again


async def test_a_stream_that_went_back_while_the_lease_stayed(
    redis_server: RedisServer, ends_at: MakeEnds
) -> None:
    ends = server_ends(ends_at, redis_server)
    publisher, consumer = ends.publishing(), ends.consuming("lease=2")
    await publisher.publish(0, [b"1", b"2"])
    partition = await owned(consumer)
    await read(partition, 2)
    stream = f"{{{ends.prefix}:0}}:operations"
    await command(redis_server, "DEL", stream)
    await command(redis_server, "XADD", stream, "1-1", "e", "from long ago")
    await eventually(lambda: not partition.held, "the owner knows")
    assert "has lost its stream" in partition.loss.reason
    started = asyncio.get_running_loop().time()
    again = await owned(consumer)  # it was given back: nobody waits for it to run out
    assert asyncio.get_running_loop().time() - started < 1
    assert bodies(await read(again, 1)) == [b"from long ago"]


async def test_a_restart_under_load(redis_server: RedisServer, ends_at: MakeEnds) -> None:
    ends = server_ends(ends_at, redis_server)
    publisher = ends.publishing("timeout=2")
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

    partition = await owned(ends.consuming())
    found: list[bytes] = []
    while some := await partition.read(1_000, 1_000_000):
        found += bodies(some)
    first = list(dict.fromkeys(found))  # what was sent again counts where it came first
    assert first == published


async def test_connections_that_are_cut(redis_server: RedisServer, ends_at: MakeEnds) -> None:
    ends = server_ends(ends_at, redis_server)
    publisher, consumer = ends.publishing(), ends.consuming()
    await publisher.publish(0, [b"1"])
    partition = await owned(consumer)
    found = await read(partition, 1)
    reading = asyncio.create_task(partition.read(1, 100))
    await eventually(lambda: "cmd=xread" in str(redis_server.command("CLIENT", "LIST")), "it reads")
    await command(redis_server, "CLIENT", "KILL", "TYPE", "normal")
    with pytest.raises(BrokerError, match="cannot be reached"):
        await reading
    assert partition.held
    await publisher.publish(0, [b"2"])
    assert bodies(await read(partition, 1)) == [b"2"]
    assert await partition.settle(found) == []


async def test_a_server_that_hangs(redis_server: RedisServer, ends_at: MakeEnds) -> None:
    ends = server_ends(ends_at, redis_server)
    publisher, consumer = ends.publishing("timeout=0.3"), ends.consuming("timeout=0.3&lease=2")
    await publisher.partitions()
    await publisher.publish(0, [b"1"])
    partition = await owned(consumer)
    first = await read(partition, 1)
    redis_server.freeze()
    started = asyncio.get_running_loop().time()
    calls = [
        publisher.publish(0, [b"2"]),
        publisher.partitions(),
        consumer.fleet(),
        consumer.waiting(),
        consumer.acquire(1, 10),
        partition.settle(first),
        partition.read(10, 100),
    ]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, BrokerError) for outcome in outcomes), outcomes
    assert "in time" in str(outcomes[0])
    await eventually(lambda: not partition.held, "the lease is over", 3)
    await partition.release()
    assert asyncio.get_running_loop().time() - started < 5
    redis_server.thaw()
    # The answer to this one was lost; what it took is found, not waited for.
    started = asyncio.get_running_loop().time()
    assert await consumer.acquire(1, 10) is not None
    assert asyncio.get_running_loop().time() - started < 1
    await publisher.publish(0, [b"3"])
    assert (await read(await owned(consumer), 3))[-1].data == b"3"


async def test_ends_let_go_of_a_server_that_hangs(redis_server: RedisServer, ends_at: MakeEnds) -> None:
    ends = server_ends(ends_at, redis_server)
    publisher, consumer = ends.publishing(), ends.consuming()
    await publisher.publish(0, [b"1"])
    await owned(consumer)
    await consumer.fleet()
    redis_server.freeze()
    async with asyncio.timeout(5):
        await consumer.disconnect()
        await publisher.disconnect()


async def test_nobody_there(ends_at: MakeEnds, redis_server: RedisServer) -> None:
    await asyncio.to_thread(redis_server.stop)
    ends = server_ends(ends_at, redis_server)
    with pytest.raises(BrokerError, match="cannot be reached"):
        await ends.publishing().publish(0, [b"1"])
    with pytest.raises(BrokerError, match="is it running"):
        await ends.broker().check()


async def test_replicas_that_are_missing(redis_server: RedisServer, ends_at: MakeEnds) -> None:
    ends = server_ends(ends_at, redis_server)
    publisher = ends.publishing("replicas=1&timeout=0.3")
    with pytest.raises(BrokerError, match="0 replicas of 1") as raised:
        await publisher.publish(0, [b"1"])
    assert raised.value.confirmed == 0


async def test_a_password_that_is_wrong(
    make_redis_server: Callable[..., RedisServer], ends_at: MakeEnds, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = await asyncio.to_thread(make_redis_server, "requirepass hunter2")
    host = server.url.removeprefix("redis://")
    for credentials, good in ((":hunter2@", True), (":swordfish@", False), ("", False)):
        ends = ends_at(f"redis://{credentials}{host}")
        if good:
            await ends.publishing().publish(0, [b"1"])
            await owned(ends.consuming())
        else:
            with pytest.raises(BrokerError, match="user and password") as raised:
                await ends.publishing().publish(0, [b"1"])
            assert "swordfish" not in str(raised.value)
    assert "hunter2" not in caplog.text
    assert "swordfish" not in caplog.text


def make_certificate(certificate: Path, key: Path) -> None:
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    words = [*command.split(), "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key)]
    subprocess.run([*words, "-out", str(certificate)], check=True, capture_output=True)


async def test_tls(
    make_redis_server: Callable[..., RedisServer],
    ends_at: MakeEnds,
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
    ends = ends_at(f"rediss://localhost:{port}")
    with pytest.raises(BrokerError):  # nobody has said that this one can be trusted
        await ends.publishing().publish(0, [b"1"])
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    publisher = ends.publishing()
    await publisher.publish(0, [b"1"])
    assert bodies(await read(await owned(ends.consuming()), 1)) == [b"1"]
