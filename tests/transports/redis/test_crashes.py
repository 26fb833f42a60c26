"""Crashes are told from what only looks like one: outages are nobody's, and are forgiven afterwards."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from prefactor_core.testing.processes import Program
from prefactor_core.transport import BrokerError, ConsumingEnd, Partition
from tests.support.brokers.proxy import Proxy
from tests.support.brokers.redis_cluster import RedisCluster
from tests.support.brokers.redis_server import RedisServer
from tests.support.brokers.sentinel import RedisSentinel
from tests.transports.redis import worker_process
from tests.transports.redis.rig import RedisRig, command
from tests.transports.rig import eventually, is_isolated, names, own, persistently, read

Change = Callable[[RedisServer], object]
MakeRig = Callable[[str], RedisRig]
OPTIONS = "lease=1&timeout=0.5"
OUTAGES = 9


def child(rig: RedisRig, lease: int) -> AbstractAsyncContextManager[Program]:
    """Start an owner of partition 0 in a process of its own, and kill it."""
    return Program.running(worker_process.__name__, f"{rig.url}?prefix={rig.prefix}&lease={lease}")


async def says(worker: Program, word: str) -> bool:
    """Wait for a word; return whether the operation may be handled, where it says that."""
    await worker.until(lambda it: it.events, 60)
    said = worker.events.pop(0)
    assert said["event"] == word
    return bool(said.get("allowed"))


async def begun(partition: Partition) -> bool:
    """Begin its one operation; return whether it may be handled, and is not to be dead-lettered."""
    (message,) = await read(partition, 1)
    return await partition.begin(message)


async def blamed(rig: RedisRig, times: int) -> None:
    """Have owners that nobody hears of any more lose partition 0."""
    for _ in range(times):
        await own(rig.consuming("lease=600"))
        await rig.crash()


@asynccontextmanager
async def behind_a_proxy(rig: RedisRig) -> AsyncIterator[tuple[Proxy, ConsumingEnd]]:
    async with (
        Proxy.before(rig.url) as proxy,
        rig.broker(OPTIONS, url=proxy.url(rig.url)).consuming() as worker,
    ):
        yield proxy, worker


async def owned_and_begun(worker: ConsumingEnd, outages: int) -> Partition:
    """Own the partition, and begin what is in it; again where the lease of a second ends before that."""
    while True:
        partition = await own(worker)
        try:
            assert await begun(partition), f"dead-lettered after {outages} outages"
        except BrokerError:
            assert not partition.held
            await partition.release()
        else:
            return partition


async def cut_off(rig: RedisRig, proxy: Proxy) -> Partition:
    """Cut the owner behind the proxy off, and succeed it."""
    proxy.refuse()
    await proxy.reset()
    return await own(rig.consuming("lease=30"))


@pytest.mark.parametrize(
    ("begin", "end"), [(RedisServer.freeze, RedisServer.thaw), (RedisServer.kill, RedisServer.start)]
)
async def test_outages_of_the_server_longer_than_a_lease_are_nobodys_crash(
    own_redis: RedisRig, redis_server: RedisServer, begin: Change, end: Change
) -> None:
    await own_redis.publish("1")
    workers = [own_redis.consuming(OPTIONS) for _ in range(2)]
    clock = asyncio.get_running_loop().time
    partition = await own(workers[0])
    assert await begun(partition)
    for number in range(1, OUTAGES + 1):
        await asyncio.to_thread(begin, redis_server)
        over = clock() + 1.1
        await eventually(lambda partition=partition: not partition.held, "the lease is over")  # type: ignore[misc]
        await partition.release()  # which cannot be told
        await asyncio.sleep(max(0.0, over - clock()))  # the broker ends it later than its owner
        await asyncio.to_thread(end, redis_server)
        await persistently(workers[number % 2].fleet)
        partition = await owned_and_begun(workers[number % 2], number)
        await persistently(workers[(number + 1) % 2].fleet)  # the owner is back
    await partition.release()
    assert await own_redis.held_against() == ({}, {})
    assert not (await own(workers[0])).isolated


async def test_outages_of_a_worker_are_not_held_against_what_it_handled(own_redis: RedisRig) -> None:
    await own_redis.publish("1")
    successor = own_redis.consuming("lease=30")
    async with child(own_redis, lease=1) as worker:
        for number in range(OUTAGES):
            assert await says(worker, "begun"), f"dead-lettered after {number} outages"
            worker.process.send_signal(signal.SIGSTOP)
            partition = await own(successor)
            assert await own_redis.held_against() == ({}, {}), "a frozen owner lives"
            assert await begun(partition), f"dead-lettered after {number} outages"
            worker.process.send_signal(signal.SIGCONT)
            await says(worker, "back")
            await partition.release()
            assert await own_redis.held_against() == ({}, {})
            worker.tell("go")
        await says(worker, "begun")


async def test_an_owner_that_is_cut_off_is_forgiven_when_it_returns(own_redis: RedisRig) -> None:
    await own_redis.publish("1")
    await blamed(own_redis, 3)
    async with behind_a_proxy(own_redis) as (proxy, worker):
        partition = await own(worker)
        (message,) = await read(partition, 1)
        assert await partition.begin(message)
        successor = await cut_off(own_redis, proxy)
        assert await successor.attempts(message) == 1
        assert len((await own_redis.held_against())[1]) == 4
        await eventually(lambda: not partition.held, "the lease is over")
        await partition.release()  # which cannot be told
        await proxy.normal()
        await persistently(worker.fleet)
        assert await successor.attempts(message) == 0
        attempts, blame = await own_redis.held_against()
        assert (attempts, len(blame)) == ({}, 3)
        assert is_isolated(successor)  # for the other three


async def test_isolation_ends_with_the_blame_that_began_it(own_redis: RedisRig) -> None:
    await own_redis.publish("12")
    await blamed(own_redis, 2)
    async with behind_a_proxy(own_redis) as (proxy, worker):
        await read(await own(worker), 2)
        successor = await cut_off(own_redis, proxy)
        assert is_isolated(successor)
        await proxy.normal()
        await persistently(worker.fleet)
        await successor.settle(await read(successor, 1))
        assert not is_isolated(successor)


async def test_a_restart_that_a_lease_outlives(own_redis: RedisRig, redis_server: RedisServer) -> None:
    await own_redis.publish("1")
    async with child(own_redis, lease=2) as worker:
        assert await says(worker, "begun")
        await asyncio.to_thread(redis_server.kill)
        await asyncio.to_thread(redis_server.start)
        await _renewed(redis_server, own_redis)
    # It is dead now, and the restart before does not hide it.
    await own(own_redis.consuming(OPTIONS))
    assert len((await own_redis.held_against())[1]) == 1


async def _renewed(server: RedisServer, rig: RedisRig) -> None:
    """Wait until the owner has renewed its lease at a server that has not given it."""
    here, owner = server.command("INFO", "server")["run_id"], rig.key("owner")
    await eventually(lambda: server.command("HGET", owner, "run_id") == here, "it is renewed")


async def failed_over(rig: RedisRig, kill: Callable[[], object], replica: RedisServer) -> None:
    """Lose the server under an owner, and be its successor at the replica, which takes over."""
    publisher, consumer = rig.publishing("timeout=2&replicas=1"), rig.consuming("timeout=2&lease=2")
    await consumer.partitions()
    await persistently(lambda: publisher.publish(0, [b"1"]))
    partition = await own(consumer)
    assert names(await read(partition, 1)) == ["1"]
    await asyncio.to_thread(kill)
    alone = rig.publishing("timeout=2")  # its replica is gone, too
    assert await persistently(lambda: alone.publish(0, [b"2"])) > 0
    other = rig.consuming("timeout=2&lease=2")

    await persistently(lambda: _take_over(other))
    assert await command(replica, "HEXISTS", rig.key("owner"), "run_id") == 1
    held_against = [await command(replica, "HGETALL", rig.key(name)) for name in ("attempts", "blame")]
    assert held_against == [{}, {}]
    await partition.release()
    await other.disconnect()
    await persistently(lambda: _take_over(consumer))


async def _take_over(end: ConsumingEnd) -> None:
    assert names(await read(await own(end), 2)) == ["1", "2"]


async def test_a_node_of_a_cluster_that_is_lost(redis_cluster: RedisCluster, rig_at: MakeRig) -> None:
    nodes = ",".join(f"127.0.0.1:{node.port}" for node in redis_cluster.nodes)  # whichever dies, others know
    rig = rig_at(f"redis+cluster://{nodes}")
    assert await rig.broker("replicas=1").check() == []
    key = rig.key("operations")
    replica = await asyncio.to_thread(lambda: redis_cluster.replica_of(redis_cluster.master_of(key)))
    await failed_over(rig, lambda: redis_cluster.kill_master_of(key), replica)


async def test_a_master_behind_sentinels_that_is_lost(redis_sentinel: RedisSentinel, rig_at: MakeRig) -> None:
    replica = await _replica(redis_sentinel)
    await failed_over(rig_at(redis_sentinel.url), redis_sentinel.kill_master, replica)


async def test_an_owner_whose_lease_outlives_its_server(
    redis_sentinel: RedisSentinel, rig_at: MakeRig
) -> None:
    replica = await _replica(redis_sentinel)
    rig = rig_at(redis_sentinel.url)
    publisher, worker = rig.publishing("timeout=2&replicas=1"), rig.consuming("timeout=2&lease=12")
    await persistently(lambda: publisher.publish(0, [b"1"]))
    partition = await own(worker)
    await eventually(lambda: replica.command("EXISTS", rig.key("lease")) == 1, "the replica has the lease")
    await asyncio.to_thread(redis_sentinel.kill_master)
    await eventually(lambda: redis_sentinel.master() is replica, "the replica takes over")
    await persistently(worker.fleet)
    await _renewed(replica, rig)
    assert partition.held
    channel = replica.command("HGET", rig.key("owner"), "channel")
    assert replica.command("PUBSUB", "NUMSUB", channel) == [channel, 1]


async def _replica(servers: RedisSentinel) -> RedisServer:
    master = await asyncio.to_thread(servers.master)
    (replica,) = (server for server in servers.servers if server is not master)
    return replica
