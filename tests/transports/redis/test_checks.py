"""Settings that can lose or hold up operations are said."""

import asyncio
import logging
import re
from collections.abc import Callable

import pytest

from prefactor_redis import dead_letters, fleet, lease_scripts, scripts
from prefactor_redis.checks import DENIED, other_problems
from prefactor_redis.link import Link
from prefactor_redis.scripts import Script
from prefactor_redis.target import Access, Address
from tests.support.brokers.redis_server import RedisServer
from tests.transports.redis.rig import RedisRig

MakeServer = Callable[..., RedisServer]
MakeRig = Callable[[str], RedisRig]
GOOD = {"maxmemory_policy": "noeviction", "aof_enabled": "1", "redis_version": "7.0.15", "role": "master"}


async def test_settings_that_lose_are_said_once_and_loudly(
    make_redis_server: MakeServer, rig_at: MakeRig, caplog: pytest.LogCaptureFixture
) -> None:
    server = await asyncio.to_thread(make_redis_server, "appendonly no", "maxmemory-policy allkeys-lru")
    rig = rig_at(server.url)
    eviction, persistence = await rig.broker().check()
    assert "allkeys-lru" in eviction
    assert "appendonly is no" in persistence
    consumer = rig.consuming()
    await consumer.partitions()
    await consumer.partitions()
    said = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert said == [eviction, persistence]


async def test_permissions(make_redis_server: MakeServer, rig_at: MakeRig) -> None:
    server = await asyncio.to_thread(make_redis_server)
    for user in (
        ["full", "on", ">pw", "~*", "+@all", "&*"],
        ["some", "on", ">pw", "~*", "+@all", "&*", "-xdel", "-hincrby", "-info"],
        ["mute", "on", ">pw", "~*", "+@all", "-pubsub", "-rpush", "-zcount"],
        ["keys", "on", ">pw", "~others:*", "+@all"],
        ["none", "on", ">pw", "~*", "+ping"],
    ):
        await asyncio.to_thread(server.command, "ACL", "SETUSER", *user)
    host = server.url.removeprefix("redis://")

    async def check(user: str) -> str:
        return "\n".join(await rig_at(f"redis://{user}:pw@{host}").broker().check())

    assert await check("full") == ""
    some = await check("some")
    assert "INFO" in some
    assert "may not run HINCRBY, XDEL on" in some
    mute = await check("mute")
    assert "may not run RPUSH, ZCOUNT, PUBSUB on" in mute
    assert "may not SUBSCRIBE to channels like {test-" in mute
    assert mute.count("SUBSCRIBE") == 1
    assert "does not permit" in await check("keys")
    assert "does not permit" in await check("none")
    assert "pw" not in some


async def test_the_user_that_is_just_enough(make_redis_server: MakeServer, rig_at: MakeRig) -> None:
    server = await asyncio.to_thread(make_redis_server)
    assert await rig_at(server.url).broker().check() == []
    assert await asyncio.to_thread(server.command, "DBSIZE") == 0  # looking leaves nothing behind
    host = server.url.removeprefix("redis://")
    rig = rig_at(f"redis://enough:pw@{host}")
    # Outside of scripts, and by the driver, these are sent.
    sent = {"pubsub|numsub", "subscribe", "ping", "eval", "evalsha", "xread", "wait", "select", "client"}
    commands = [f"+{name}" for name in sorted(commands_of_scripts() - {"pubsub"} | sent)]
    user = ["enough", "on", ">pw", f"~{{{rig.prefix}*", f"&{{{rig.prefix}*", *commands]
    await asyncio.to_thread(server.command, "ACL", "SETUSER", *user)
    assert await rig.broker().check() == []


def commands_of_scripts() -> set[str]:
    """Return the commands in all of our scripts."""
    texts = [
        found.text
        for module in (dead_letters, fleet, lease_scripts, scripts)
        for found in vars(module).values()
        if isinstance(found, Script)
    ]
    assert len(texts) > 15
    return {name.lower() for text in texts for name in re.findall(r"redis\.p?call\('(\w+)'", text)}


def test_all_commands_of_scripts_are_checked() -> None:
    checked = set(re.findall(r" '(\w+)[ ']", DENIED.text))
    assert commands_of_scripts() - checked == {"info"}  # whose lack is said in other words


def test_facts() -> None:
    for fact, replicas, says in (
        ({"redis_version": "6.2.14"}, 0, "needs to be 7.0"),
        ({"connected_slaves": "1"}, 2, "replicas=2"),
        ({"role": "slave"}, 0, "is a replica"),
        ({"loading": "1"}, 0, "loading"),
    ):
        problems = other_problems(GOOD | fact, replicas)
        assert len(problems) == 1, fact
        assert says in problems[0]
    for version in ("7.0.0", "7.4.1", "8.0.2", "10.0", "255.255.255", "unknown"):
        assert other_problems(GOOD | {"redis_version": version}, 0) == [], version


def test_messages_name_the_scheme_where_it_is_tls() -> None:
    address = Address("host", 6380)
    names = [Link(address, Access(tls=tls), size=1, patience=1).name for tls in (False, True)]
    assert names == ["Redis at host:6380", "Redis at rediss://host:6380"]
