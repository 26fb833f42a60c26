"""A cluster, and a master behind sentinels: other clients, the same loop."""

import asyncio
from collections.abc import Callable

from tests.support.brokers.redis_cluster import RedisCluster
from tests.support.brokers.sentinel import RedisSentinel
from tests.transports.redis.conftest import Ends, bodies, owned, persistently, read

MakeEnds = Callable[[str], Ends]


async def test_partitions_all_over_a_cluster(redis_cluster: RedisCluster, ends_at: MakeEnds) -> None:
    ends = ends_at(redis_cluster.url)
    publisher, consumer = ends.publishing(), ends.consuming("partitions=8")
    assert await ends.broker("replicas=1").check() == []
    assert await consumer.partitions() == 8
    await consumer.fleet()
    for number in range(8):
        await publisher.publish(number, [b"a%d" % number, b"b%d" % number])
    assert await consumer.waiting() == 16
    for number in range(8):
        partition = await owned(consumer, number)
        found = await read(partition, 2)
        assert bodies(found) == [b"a%d" % number, b"b%d" % number]
        assert await partition.settle(found[:1]) == []
        assert await partition.dead_letter([(found[1], b"record")]) == []
    states = await consumer.states()
    assert [(state.number, state.waiting, state.dead) for state in states] == [(n, 0, 1) for n in range(8)]
    assert all(state.owner for state in states)
    dead = ends.dead_letters()
    letters = [letter async for letter in dead.read()]
    assert [letter.partition for letter in letters] == list(range(8))
    await dead.remove(letters)
    assert [letter async for letter in dead.read()] == []


async def test_a_node_of_a_cluster_dies(redis_cluster: RedisCluster, ends_at: MakeEnds) -> None:
    nodes = ",".join(f"127.0.0.1:{node.port}" for node in redis_cluster.nodes)  # whichever dies, others know
    ends = ends_at(f"redis+cluster://{nodes}")
    publisher, consumer = ends.publishing("timeout=2&replicas=1"), ends.consuming("timeout=2&lease=2")
    await consumer.partitions()
    key = f"{{{ends.prefix}:0}}:operations"
    await persistently(lambda: publisher.publish(0, [b"1"]))
    partition = await owned(consumer)
    assert bodies(await read(partition, 1)) == [b"1"]
    await asyncio.to_thread(redis_cluster.kill_master_of, key)
    unwanted = ends.publishing("timeout=2")  # its replica is gone, too
    failures = await persistently(lambda: unwanted.publish(0, [b"2"]), 30)
    assert failures > 0
    await partition.release()

    async def take_over() -> None:
        found = await read(await owned(consumer), 2)
        assert bodies(found) == [b"1", b"2"]

    await persistently(take_over, 30)


async def test_a_failover_by_sentinels(redis_sentinel: RedisSentinel, ends_at: MakeEnds) -> None:
    ends = ends_at(redis_sentinel.url)
    publisher, consumer = ends.publishing("timeout=2&replicas=1"), ends.consuming("timeout=2&lease=2")
    await consumer.partitions()
    await persistently(lambda: publisher.publish(0, [b"1"]))
    partition = await owned(consumer)
    assert bodies(await read(partition, 1)) == [b"1"]
    await asyncio.to_thread(redis_sentinel.kill_master)
    alone = ends.publishing("timeout=2")
    failures = await persistently(lambda: alone.publish(0, [b"2"]), 30)
    assert failures > 0
    await partition.release()

    async def take_over() -> None:
        found = await read(await owned(consumer), 2)
        assert bodies(found) == [b"1", b"2"]

    await persistently(take_over, 30)
