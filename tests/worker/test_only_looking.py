"""`check`, `status` and `dead-letters list` and `show` leave a broker as they found it."""

import asyncio
import uuid
from collections.abc import Iterator

import pytest

from tests.support.brokers.rabbitmq_server import RabbitServer
from tests.support.brokers.redis_server import RedisServer
from tests.support.operations import life
from tests.worker.commands import PARTITIONS, Done, command, dead_letter, open_queue, publish

_LOOKS = (
    ("check",),
    ("check", "--strict"),
    ("status",),
    ("status", "--json"),
    ("dead-letters", "list"),
    ("dead-letters", "show", "no-such-operation"),
)


@pytest.fixture
def vhost(rabbit_server: RabbitServer) -> Iterator[str]:
    """A virtual host in which nothing is."""
    name = f"test-{uuid.uuid4().hex}"
    rabbit_server.ctl("add_vhost", name)
    rabbit_server.ctl("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
    yield name
    rabbit_server.ctl("delete_vhost", name)


def _everything_in(server: RabbitServer, vhost: str) -> dict[str, list[str]]:
    columns = {
        "queues": ("name", "messages", "arguments"),
        "exchanges": ("name", "type"),
        "bindings": ("source_name", "destination_name", "routing_key"),
    }
    return {
        what: sorted(server.ctl(f"list_{what}", "-p", vhost, *names).splitlines())
        for what, names in columns.items()
    }


def _everything_at(server: RedisServer) -> tuple[object, ...]:
    keys = sorted(server.command("KEYS", "*"))
    return (
        server.command("DBSIZE"),
        [(key, server.command("TYPE", key), server.command("MEMORY", "USAGE", key)) for key in keys],
        server.command("CONFIG", "GET", "*"),
    )


async def _look(url: str) -> list[Done]:
    done = [await command(*words, "--transport", url) for words in _LOOKS]
    # A dead letter that is not there, and no worker for --strict; the rest is well.
    assert [one.status for one in done] == [0, 1, 0, 0, 0, 1], [one.output + one.errors for one in done]
    return done


async def test_a_rabbitmq_stays_as_it_is(rabbit_server: RabbitServer, vhost: str) -> None:
    url = f"{rabbit_server.url}{vhost}?partitions={PARTITIONS}"
    unused = await asyncio.to_thread(_everything_in, rabbit_server, vhost)
    assert unused["queues"] == []
    checked, *_ = await _look(url)
    assert await asyncio.to_thread(_everything_in, rabbit_server, vhost) == unused
    for words in (
        "this user's permissions are as they have to be",
        f"partitions: none recorded yet; the first process that uses the broker makes {PARTITIONS}",
    ):
        assert words in checked.output
    async with open_queue(url) as queue:
        await dead_letter(queue, life("dead"))
    async with open_queue(url) as queue:
        await publish(queue, life("waiting"))
    async with asyncio.timeout(180):
        before = unused
        while sum(int(line.split("\t")[1]) for line in before["queues"]) != 10:  # it counts every few seconds
            before = await asyncio.to_thread(_everything_in, rabbit_server, vhost)
    assert before["exchanges"] != unused["exchanges"], "what uses it is seen here"
    checked, *_ = await _look(url)
    assert await asyncio.to_thread(_everything_in, rabbit_server, vhost) == before
    assert f"partitions: {PARTITIONS} are recorded" in checked.output
    assert "none is there, and 5 operations wait" in checked.output
    assert "dead letters: 5" in checked.output


async def test_a_redis_stays_as_it_is(redis_server: RedisServer) -> None:
    url = f"{redis_server.url}?partitions={PARTITIONS}"
    before = await asyncio.to_thread(_everything_at, redis_server)
    assert before[0] == 0
    await _look(url)
    assert await asyncio.to_thread(_everything_at, redis_server) == before
    async with open_queue(url) as queue:
        await dead_letter(queue, life("dead"))
    async with open_queue(url) as queue:
        await publish(queue, life("waiting"))
    before = await asyncio.to_thread(_everything_at, redis_server)
    assert before[0] != 0
    await _look(url)
    assert await asyncio.to_thread(_everything_at, redis_server) == before
