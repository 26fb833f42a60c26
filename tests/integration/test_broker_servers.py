"""The brokers that tests start and break: each one does what a broker does, and survives what it should."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar, Self

import aio_pika
import pytest
import redis
from aio_pika.abc import AbstractChannel

from tests.support.brokers.containers import rabbitmq_container, redis_container
from tests.support.brokers.proxy import Proxy
from tests.support.brokers.rabbitmq_cluster import RabbitCluster
from tests.support.brokers.rabbitmq_server import CtlError, RabbitServer
from tests.support.brokers.redis_cluster import RedisCluster
from tests.support.brokers.redis_server import RedisServer, running_redis
from tests.support.brokers.sentinel import RedisSentinel
from tests.support.brokers.waiting import wait_until

QUORUM: dict[str, str | int] = {"x-queue-type": "quorum"}


def client_of(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, decode_responses=True, socket_timeout=5)


def set_safely(server: RedisServer, key: str, value: str) -> None:
    """Set a key and wait until the replica has it."""
    with client_of(server.url) as client:
        client.set(key, value)
        assert client.wait(1, 5_000) == 1


@asynccontextmanager
async def channel_to(url: str) -> AsyncIterator[AbstractChannel]:
    connection = await aio_pika.connect(url, timeout=10)
    async with connection, connection.channel() as channel:
        yield channel


async def publish(url: str, queue: str, body: bytes) -> None:
    """Declare a quorum queue and publish to it; a broker confirms when it is safe."""
    async with channel_to(url) as channel:
        await channel.declare_queue(queue, durable=True, arguments={**QUORUM})
        message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, queue)


async def take(url: str, queue: str) -> bytes:
    async with channel_to(url) as channel:
        found = await (await channel.get_queue(queue, ensure=False)).get(timeout=10)
        assert found is not None
        await found.ack()
        return found.body


def strays_of(folder: Path) -> list[str]:
    """Return the processes of a RabbitMQ at home in ``folder``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"HOME={folder}\0".encode() in (process / "environ").read_bytes():
                found.append(process.name)
        except OSError:  # it has ended since, or is not ours to read
            continue
    return found


class Container:
    """What a container is to the fixtures, without an engine: a name for a server that runs already."""

    made: ClassVar[list["Container"]] = []
    target = 0

    def __init__(self, image: str) -> None:
        self.image = image
        self.command = ""
        self.port = 0
        self.running = False
        self.made.append(self)

    def with_exposed_ports(self, port: int) -> Self:
        self.port = port
        return self

    def with_command(self, command: str) -> Self:
        self.command = command
        return self

    def get_container_host_ip(self) -> str:
        return "127.0.0.1"

    def get_exposed_port(self, port: int) -> str:
        assert self.running
        assert port == self.port
        return str(self.target)

    def __enter__(self) -> Self:
        self.running = True
        return self

    def __exit__(self, *_: object) -> None:
        self.running = False


@pytest.fixture
def containers(monkeypatch: pytest.MonkeyPatch) -> type[Container]:
    class Fresh(Container):
        made: ClassVar[list[Container]] = []

    monkeypatch.setattr("testcontainers.core.container.DockerContainer", Fresh)
    return Fresh


def test_a_redis_in_a_container(containers: type[Container], redis_server: RedisServer) -> None:
    containers.target = redis_server.port
    with redis_container() as url:
        assert url == redis_server.url
    (made,) = containers.made
    assert (made.image, made.port, made.running) == ("redis:7-alpine", 6379, False)
    assert made.command == "redis-server --appendonly yes --maxmemory-policy noeviction"


def test_a_rabbitmq_in_a_container(containers: type[Container], rabbit_server: RabbitServer) -> None:
    containers.target = rabbit_server.port
    with rabbitmq_container() as url:
        assert url == rabbit_server.url
    (made,) = containers.made
    assert (made.image, made.port, made.running) == ("rabbitmq:3.13-alpine", 5672, False)


def test_the_shared_redis_answers(redis_url: str, redis_prefix: str) -> None:
    with client_of(redis_url) as client:
        client.set(f"{{{redis_prefix}}}:key", "value")
        assert client.get(f"{{{redis_prefix}}}:key") == "value"


async def test_the_shared_rabbitmq_answers(amqp_url: str, amqp_prefix: str) -> None:
    async with channel_to(amqp_url) as channel:
        queue = await channel.declare_queue(f"{amqp_prefix}-queue", exclusive=True)
        await channel.default_exchange.publish(aio_pika.Message(b"body"), queue.name)
        found = await queue.get(timeout=10)
        assert found is not None
        assert found.body == b"body"


def test_a_redis_has_its_data_and_its_port_again_after_a_kill(redis_server: RedisServer) -> None:
    url = redis_server.url
    redis_server.command("SET", "key", "value")
    redis_server.kill()
    with pytest.raises(redis.ConnectionError):
        redis_server.command("PING")
    redis_server.start()
    assert redis_server.url == url
    assert redis_server.command("GET", "key") == "value"
    redis_server.stop()
    redis_server.heal()
    assert redis_server.command("GET", "key") == "value"


def test_a_frozen_redis_answers_when_it_is_thawed(redis_server: RedisServer) -> None:
    redis_server.freeze()
    with pytest.raises(redis.TimeoutError):
        redis_server.command("PING")
    redis_server.thaw()
    assert redis_server.command("PING")


def test_options_win_over_defaults(make_redis_server: Callable[..., RedisServer]) -> None:
    server = make_redis_server("appendfsync everysec", "maxmemory 3mb")
    assert server.command("CONFIG", "GET", "appendfsync") == ["appendfsync", "everysec"]
    assert server.command("CONFIG", "GET", "maxmemory-policy") == ["maxmemory-policy", "noeviction"]
    assert server.command("CONFIG", "GET", "maxmemory") == ["maxmemory", str(3 * 2**20)]


def test_a_redis_that_cannot_start_says_why(make_redis_server: Callable[..., RedisServer]) -> None:
    with pytest.raises(RuntimeError, match="no-such-directive"):
        make_redis_server("no-such-directive 1")


async def test_a_redis_behind_a_proxy(redis_url: str, redis_prefix: str, tmp_path: Path) -> None:
    del redis_url, redis_prefix  # skipped or failed like the others where there is no Redis
    async with running_redis(tmp_path / "redis") as server, Proxy.before(server.url) as proxy:
        with await asyncio.to_thread(client_of, proxy.url(server.url)) as client:
            proxy.slice_replies()
            assert await asyncio.to_thread(client.echo, "in slices") == "in slices"
            await proxy.normal()
            await proxy.reset()
            assert await asyncio.to_thread(client.ping)  # the client connects again
            assert proxy.accepted == 2


def test_a_redis_cluster_replaces_a_killed_master(redis_cluster: RedisCluster) -> None:
    assert len(redis_cluster.nodes) == 6
    master = redis_cluster.master_of("key")
    replica = redis_cluster.replica_of(master)
    set_safely(master, "key", "value")
    assert redis_cluster.kill_master_of("key") is master
    redis_cluster.wait_settled()
    assert redis_cluster.master_of("key") is replica
    assert replica.command("GET", "key") == "value"
    redis_cluster.restart(master)
    assert redis_cluster.replica_of(replica) is master
    host, port = redis_cluster.url.removeprefix("redis+cluster://").split(":")
    with redis.RedisCluster(host, int(port), decode_responses=True) as client:
        assert client.get("key") == "value"


def test_sentinels_resolve_the_master_and_replace_it(redis_sentinel: RedisSentinel) -> None:
    master = redis_sentinel.master()
    set_safely(master, "key", "value")
    addresses = redis_sentinel.url.removeprefix("redis+sentinel://").removesuffix("/mymaster").split(",")
    pairs = [(host, int(port)) for host, port in (address.split(":") for address in addresses)]
    sentinel = redis.Sentinel(pairs)  # type: ignore[no-untyped-call]
    try:
        found = sentinel.discover_master("mymaster")  # type: ignore[no-untyped-call]
        assert found == ("127.0.0.1", master.port)
        assert redis_sentinel.kill_master() is master
        redis_sentinel.wait_settled()
        other = redis_sentinel.master()
        assert other is not master
        assert other.command("GET", "key") == "value"
        found = sentinel.discover_master("mymaster")  # type: ignore[no-untyped-call]
        assert found == ("127.0.0.1", other.port)
        redis_sentinel.restart(master)
        assert master.command("ROLE")[0] == "slave"
    finally:
        for client in sentinel.sentinels:
            client.close()


async def test_a_rabbitmq_has_its_queue_and_its_port_again_after_a_kill(
    rabbit_server: RabbitServer, amqp_prefix: str
) -> None:
    url, queue = rabbit_server.url, f"{amqp_prefix}-queue"
    await publish(url, queue, b"safe")
    await asyncio.to_thread(rabbit_server.kill)
    await asyncio.to_thread(wait_until, lambda: not strays_of(rabbit_server.folder), "its end", seconds=10)
    with pytest.raises(aio_pika.exceptions.AMQPConnectionError):
        await aio_pika.connect(url, timeout=5)
    await asyncio.to_thread(rabbit_server.start)
    assert rabbit_server.url == url
    assert await take(url, queue) == b"safe"


async def test_a_rabbitmq_lists_its_queues_and_raises_an_alarm(
    rabbit_server: RabbitServer, amqp_prefix: str
) -> None:
    await publish(rabbit_server.url, amqp_prefix, b"one")
    rows = await asyncio.to_thread(rabbit_server.ctl, "list_queues", "name", "type")
    assert [amqp_prefix, "quorum"] in [row.split("\t") for row in rows.splitlines()]
    await asyncio.to_thread(rabbit_server.memory_alarm, on=True)
    assert "memory" in await asyncio.to_thread(rabbit_server.ctl, "eval", "rabbit_alarm:get_alarms().")
    await asyncio.to_thread(rabbit_server.heal)
    assert "memory" not in await asyncio.to_thread(rabbit_server.ctl, "eval", "rabbit_alarm:get_alarms().")
    with pytest.raises(CtlError, match="no_such_command"):
        await asyncio.to_thread(rabbit_server.ctl, "no_such_command")


def test_a_frozen_rabbitmq_lets_nobody_in_until_it_is_thawed(rabbit_server: RabbitServer) -> None:
    rabbit_server.freeze()
    with pytest.raises(TimeoutError, match="a RabbitMQ that accepts connections"):
        rabbit_server.wait_ready(seconds=0.5)
    rabbit_server.thaw()
    rabbit_server.wait_ready(seconds=10)


async def test_a_rabbitmq_cluster_finds_another_leader(
    rabbit_cluster: RabbitCluster, amqp_prefix: str
) -> None:
    queue = f"{amqp_prefix}-queue"
    assert len(set(rabbit_cluster.urls)) == 3
    await publish(rabbit_cluster.url, queue, b"safe")
    leader = await asyncio.to_thread(rabbit_cluster.kill_leader_of, queue)
    await asyncio.to_thread(rabbit_cluster.wait_settled)
    other = await asyncio.to_thread(rabbit_cluster.leader_of, queue)
    assert other is not leader
    assert await take(rabbit_cluster.url, queue) == b"safe"
    await asyncio.to_thread(rabbit_cluster.restart, leader)
    assert leader.up
