"""Crashes are told from what only looks like one, and the latter is forgiven once its owner is back."""

import asyncio
from collections.abc import Callable

from prefactor_core.broker.driver import ConsumingEnd, Partition
from tests.support.brokers.proxy import Proxy
from tests.support.brokers.redis_cluster import RedisCluster
from tests.support.brokers.redis_server import RedisServer
from tests.support.brokers.sentinel import RedisSentinel
from tests.transports.redis.children import child
from tests.transports.redis.conftest import Ends, eventually, held_against, owned, persistently, read

MakeEnds = Callable[[str], Ends]
OPTIONS = "lease=1&timeout=0.5"


async def command(server: RedisServer, *words: str) -> object:
    return await asyncio.to_thread(server.command, *words)


async def killed_while_handling(url: str) -> bool:
    """Kill an owner in the middle of an operation; return whether it was allowed to handle it."""
    async with child(url) as owner:
        return await owner.says("begun")


def is_isolated(partition: Partition) -> bool:
    return partition.isolated


async def blamed(server: RedisServer, ends: Ends, times: int) -> None:
    """Have owners that nobody hears of any more lose partition 0."""
    for _ in range(times):
        await owned(ends.consuming("lease=600"))
        tag = f"{{{ends.prefix}:0}}"
        await command(server, "HSET", f"{tag}:owner", "channel", "nobody's")
        await command(server, "DEL", f"{tag}:lease")


async def returned(worker: ConsumingEnd) -> None:
    async def once() -> None:
        await worker.fleet()

    await persistently(once)


async def test_what_kills_its_owners(redis_server: RedisServer, ends_at: MakeEnds) -> None:
    ends = ends_at(redis_server.url)
    publisher = ends.publishing()
    await publisher.partitions()
    await publisher.publish(0, [b"poison"])
    url = f"{ends.url}?prefix={ends.prefix}&lease=1"
    for crashes in range(3):
        assert len((await held_against(redis_server, ends.prefix))[1]) == max(0, crashes - 1)
        assert await killed_while_handling(url)
    for _ in range(3):  # from now on each attempt is recorded
        assert await killed_while_handling(url)
    partition = await owned(ends.consuming(OPTIONS))
    assert partition.isolated
    (poison,) = await read(partition, 1)
    assert await partition.attempts(poison) == 3
    assert not await partition.begin(poison)
    assert await partition.attempts(poison) == 3
    assert await partition.dead_letter([(poison, b"record")]) == []
    assert not is_isolated(partition)
    await partition.release()
    assert len([letter async for letter in ends.dead_letters().read()]) == 1
    assert await held_against(redis_server, ends.prefix) == ({}, {})


async def test_an_owner_that_is_cut_off_is_forgiven_when_it_returns(
    redis_server: RedisServer, ends_at: MakeEnds
) -> None:
    ends = ends_at(redis_server.url)
    await ends.publishing().publish(0, [b"1"])
    await blamed(redis_server, ends, 3)
    async with Proxy.before(redis_server.url) as proxy:
        worker = Ends(proxy.url(ends.url), ends.prefix).consuming(OPTIONS)
        try:
            partition = await owned(worker)
            (message,) = await read(partition, 1)
            assert await partition.begin(message)
            proxy.refuse()
            await proxy.reset()
            successor = await owned(ends.consuming(OPTIONS))
            assert await successor.attempts(message) == 1
            assert len((await held_against(redis_server, ends.prefix))[1]) == 4
            await eventually(lambda: not partition.held, "the lease is over")
            await partition.release()  # which cannot be told
            await proxy.normal()
            await returned(worker)
            assert await successor.attempts(message) == 0
            attempts, blame = await held_against(redis_server, ends.prefix)
            assert (attempts, len(blame)) == ({}, 3)
            assert is_isolated(successor)  # for the other three
        finally:
            await worker.disconnect()


async def test_isolation_ends_with_the_blame_that_began_it(
    redis_server: RedisServer, ends_at: MakeEnds
) -> None:
    ends = ends_at(redis_server.url)
    await ends.publishing().publish(0, [b"1", b"2"])
    await blamed(redis_server, ends, 2)
    async with Proxy.before(redis_server.url) as proxy:
        worker = Ends(proxy.url(ends.url), ends.prefix).consuming(OPTIONS)
        try:
            await read(await owned(worker), 2)
            proxy.refuse()
            await proxy.reset()
            successor = await owned(ends.consuming(OPTIONS))
            assert is_isolated(successor)
            await proxy.normal()
            await returned(worker)
            await successor.settle(await read(successor, 1))
            assert not is_isolated(successor)
        finally:
            await worker.disconnect()


async def test_a_restart_that_a_lease_outlives(redis_server: RedisServer, ends_at: MakeEnds) -> None:
    ends = ends_at(redis_server.url)
    await ends.publishing().publish(0, [b"1"])
    owner = f"{{{ends.prefix}:0}}:owner"
    async with child(f"{ends.url}?prefix={ends.prefix}&lease=2") as worker:
        assert await worker.says("begun")
        await asyncio.to_thread(redis_server.kill)
        await asyncio.to_thread(redis_server.start)
        here = redis_server.command("INFO", "server")["run_id"]
        await eventually(lambda: redis_server.command("HGET", owner, "run_id") == here, "it is renewed")
    # It is dead now, and the restart before does not hide it.
    await owned(ends.consuming(OPTIONS))
    assert len((await held_against(redis_server, ends.prefix))[1]) == 1


async def failed_over(ends: Ends, kill: Callable[[], object], server: RedisServer, options: str) -> None:
    """Lose the server under an owner, and be its successor at ``server``, which takes over."""
    publisher, other = ends.publishing("timeout=2&replicas=1"), ends.consuming(options)
    worker = ends.consuming(options)
    await persistently(lambda: publisher.publish(0, [b"1"]))
    await read(await owned(worker), 1)
    await asyncio.to_thread(kill)

    async def take_over() -> None:
        await owned(other)

    await persistently(take_over, 30)
    owner = f"{{{ends.prefix}:0}}:owner"
    assert await command(server, "HEXISTS", owner, "run_id") == 1
    assert await held_against(server, ends.prefix) == ({}, {})


async def test_a_node_of_a_cluster_that_is_lost(redis_cluster: RedisCluster, ends_at: MakeEnds) -> None:
    nodes = ",".join(f"127.0.0.1:{node.port}" for node in redis_cluster.nodes)
    ends = ends_at(f"redis+cluster://{nodes}")
    key = f"{{{ends.prefix}:0}}:operations"
    replica = await asyncio.to_thread(lambda: redis_cluster.replica_of(redis_cluster.master_of(key)))
    await failed_over(ends, lambda: redis_cluster.kill_master_of(key), replica, "timeout=2&lease=1")


async def test_a_master_behind_sentinels_that_is_lost(
    redis_sentinel: RedisSentinel, ends_at: MakeEnds
) -> None:
    master = await asyncio.to_thread(redis_sentinel.master)
    (replica,) = (server for server in redis_sentinel.servers if server is not master)
    ends = ends_at(redis_sentinel.url)
    await failed_over(ends, redis_sentinel.kill_master, replica, "timeout=2&lease=1")


async def test_an_owner_whose_lease_outlives_its_server(
    redis_sentinel: RedisSentinel, ends_at: MakeEnds
) -> None:
    master = await asyncio.to_thread(redis_sentinel.master)
    (replica,) = (server for server in redis_sentinel.servers if server is not master)
    here = replica.command("INFO", "server")["run_id"]
    ends = ends_at(redis_sentinel.url)
    publisher, worker = ends.publishing("timeout=2&replicas=1"), ends.consuming("timeout=2&lease=12")
    await persistently(lambda: publisher.publish(0, [b"1"]))
    partition = await owned(worker)
    tag = f"{{{ends.prefix}:0}}"
    await eventually(lambda: replica.command("EXISTS", f"{tag}:lease") == 1, "the replica has the lease")
    await asyncio.to_thread(redis_sentinel.kill_master)
    await eventually(lambda: redis_sentinel.master() is replica, "the replica takes over", 20)
    await returned(worker)
    await eventually(lambda: replica.command("HGET", f"{tag}:owner", "run_id") == here, "it is renewed")
    assert partition.held
    channel = replica.command("HGET", f"{tag}:owner", "channel")
    assert replica.command("PUBSUB", "NUMSUB", channel) == [channel, 1]
