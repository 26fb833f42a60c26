"""Whether a process lives can be asked of the server, whatever happens to its connection."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from prefactor_core.transport import BrokerError
from prefactor_redis.presence import Presence
from prefactor_redis.servers import Links, servers_of
from prefactor_redis.target import Target, read_target
from tests.support.brokers.proxy import Proxy
from tests.support.brokers.redis_server import RedisServer
from tests.transports.redis.rig import RedisRig
from tests.transports.rig import eventually, own, read


@asynccontextmanager
async def shown(url: str) -> AsyncIterator[tuple[Presence, Target]]:
    """Subscribe to the channel ``here``."""
    target = read_target(url)
    links = Links(servers_of(target), target.access, size=1, patience=0.5)
    presence = Presence(links, "here", interval=0.2, patience=0.5)
    try:
        assert await presence.ensure(target.addresses[0])
        yield presence, target
    finally:
        await presence.close()
        await links.aclose()


def subscribers(server: RedisServer) -> int:
    _, count = server.command("PUBSUB", "NUMSUB", "here")
    return int(count)


async def test_a_subscription_is_renewed_after_cuts_and_a_restart(redis_server: RedisServer) -> None:
    async with shown(redis_server.url) as (presence, target):
        assert subscribers(redis_server) == 1
        for _ in range(3):
            redis_server.command("CLIENT", "KILL", "TYPE", "pubsub")
            await eventually(lambda: subscribers(redis_server) == 1, "it is there again")
        assert await presence.ensure(target.addresses[0])
        assert subscribers(redis_server) == 1
        await asyncio.to_thread(redis_server.kill)
        with pytest.raises(BrokerError):  # once it is noticed
            for _ in range(100):
                await presence.ensure(target.addresses[0])
                await asyncio.sleep(0.05)
        await asyncio.to_thread(redis_server.start)
        await eventually(lambda: subscribers(redis_server) == 1, "it is there after the restart")
    await eventually(lambda: subscribers(redis_server) == 0, "it is gone")


async def test_a_connection_that_carries_nothing_is_replaced(redis_server: RedisServer) -> None:
    async with Proxy.before(redis_server.url) as proxy, shown(proxy.url(redis_server.url)):
        proxy.swallow()
        redis_server.command("CLIENT", "KILL", "TYPE", "pubsub")  # which the other side does not hear of
        assert subscribers(redis_server) == 0
        await eventually(lambda: proxy.accepted > 2, "others are tried")
        await proxy.normal()
        await eventually(lambda: subscribers(redis_server) == 1, "one of them goes through")


async def test_a_slow_server_does_not_miss_anybody(redis_server: RedisServer) -> None:
    async with shown(redis_server.url):
        for _ in range(2):
            redis_server.freeze()
            await asyncio.sleep(0.6)  # long enough for the connection to be doubted
            redis_server.thaw()
            until = asyncio.get_running_loop().time() + 0.3
            while asyncio.get_running_loop().time() < until:
                assert subscribers(redis_server) >= 1
                await asyncio.sleep(0)


async def test_a_user_without_channels(
    own_redis: RedisRig, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    redis_server.command("ACL", "SETUSER", "some", "on", ">pw", "~*", "+@all", "resetchannels")
    url = redis_server.url.replace("redis://", "redis://some:pw@")
    await own_redis.publishing(url=url).publish(0, [b"1"])
    owner, successor = (own_redis.consuming("lease=30", url=url) for _ in range(2))
    await owner.partitions()
    await own(owner, 1)
    await read(await own(owner), 1)
    (said,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert "ACL SETUSER" in said
    await own_redis.end_lease()
    await own(successor)  # it counts, as nobody can say that it must not
    assert len((await own_redis.held_against())[1]) == 1
    await owner.disconnect()
    assert await own_redis.held_against() == ({}, {})
