"""The leader of a cluster killed under load: what was confirmed arrives, once and in order."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from prefactor_core.broker.envelope import partition_of
from prefactor_core.exceptions import BrokerError
from prefactor_emulator.verify.files import read_puts
from prefactor_rabbitmq.broker import RabbitBroker
from prefactor_rabbitmq.names import Names
from prefactor_redis.broker import RedisBroker
from prefactor_redis.keys import Keys
from tests.fleet.scenario import check, effect_instances, published, stop, takes_effect
from tests.support.brokers.rabbitmq_cluster import RabbitCluster
from tests.support.brokers.redis_cluster import RedisCluster
from tests.support.brokers.sentinel import RedisSentinel
from tests.support.fleet import running_fleet, until

LOAD = ("--instances", "20", "--spans", "80", "--pace", "0.3")


@dataclass(frozen=True)
class Cluster:
    """How a fleet reaches a cluster, and how the server that leads a partition is replaced.

    Attributes:
        url: Names every node: the one that is killed may be the one that somebody is connected to.
        partitions: How many there are.
        kill: Kills the leader of a partition; what it returns waits for another, and brings the first back.
        is_needed: Whether nothing more is confirmed without the server that was killed.
    """

    url: str
    partitions: int
    kill: Callable[[int], Callable[[], None]]
    is_needed: bool


def redis_url_of(cluster: RedisCluster, prefix: str) -> str:
    nodes = ",".join(f"127.0.0.1:{node.port}" for node in cluster.nodes)
    return f"redis+cluster://{nodes}?prefix={prefix}&partitions=16&replicas=1&lease=3"


def stream_of(prefix: str, partition: int) -> str:
    return Keys(prefix).of(partition).operations.decode()


def redis_cluster_of(cluster: RedisCluster, prefix: str) -> Cluster:
    def kill(partition: int) -> Callable[[], None]:
        key = stream_of(prefix, partition)
        killed = cluster.kill_master_of(key)

        def mend() -> None:
            cluster.wait_settled()
            assert cluster.master_of(key) is not killed
            cluster.restart(killed)

        return mend

    # A master without a replica confirms nothing where one is asked for.
    return Cluster(redis_url_of(cluster, prefix), 16, kill, is_needed=True)


def sentinels_of(sentinel: RedisSentinel, prefix: str) -> Cluster:
    def kill(_: int) -> Callable[[], None]:
        killed = sentinel.kill_master()

        def mend() -> None:
            sentinel.wait_settled()
            assert sentinel.master() is not killed
            sentinel.restart(killed)

        return mend

    return Cluster(f"{sentinel.url}?prefix={prefix}&replicas=1&lease=3", 16, kill, is_needed=True)


def rabbit_cluster_of(cluster: RabbitCluster, prefix: str) -> Cluster:
    def kill(partition: int) -> Callable[[], None]:
        queue = Names(prefix).partition(partition)
        leader = cluster.leader_of(queue)
        leader.kill()
        assert cluster.leader_of(queue) is not leader
        return lambda: cluster.restart(leader)

    hosts = ",".join(urlsplit(url).netloc.rpartition("@")[2] for url in cluster.urls)
    # To declare sixteen quorum queues takes a cluster of one machine seconds.
    url = f"amqp://guest:guest@{hosts}/?prefix={prefix}&partitions=4&heartbeat=2"
    return Cluster(url, 4, kill, is_needed=False)  # two of three nodes are enough to confirm


@pytest.fixture(params=["redis cluster", "sentinels", "rabbitmq cluster"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """A cluster of each kind, under a prefix of the test's own."""
    if request.param == "rabbitmq cluster":
        servers = request.getfixturevalue("rabbit_cluster")
        return rabbit_cluster_of(servers, request.getfixturevalue("amqp_prefix"))
    prefix = request.getfixturevalue("redis_prefix")
    if request.param == "sentinels":
        return sentinels_of(request.getfixturevalue("redis_sentinel"), prefix)
    return redis_cluster_of(request.getfixturevalue("redis_cluster"), prefix)


@pytest.mark.parametrize("working", [True, False], ids=["drained meanwhile", "drained afterwards"])
async def test_a_leader_killed_under_load(cluster: Cluster, tmp_path: Path, working: bool) -> None:
    """With nothing drained before the kill, whatever was confirmed must be on the other nodes."""
    async with running_fleet(cluster.url, tmp_path) as fleet:
        if cluster.url.startswith("amqp"):  # all queues are there before anything of it is killed
            async with RabbitBroker(fleet.url).publishing() as end:
                assert await end.partitions() == cluster.partitions
        enough = tmp_path / "enough"  # a busy machine must not end the load before the kill
        agent = await fleet.agent(*LOAD, "--until", str(enough))
        worker = await fleet.worker() if working else None
        if worker is not None:
            await takes_effect(fleet, 500)
            instance = effect_instances(fleet)[-1]  # it has only begun
        else:
            await until(lambda: fleet.puts() > 500, 180, "the agent publishes")
            instance = list(read_puts(str(tmp_path / "puts-0.jsonl")))[-1].instance_id
        number = partition_of(instance, cluster.partitions)
        before = await fleet.effects()
        mend = await asyncio.to_thread(cluster.kill, number)
        if cluster.is_needed:
            await until(lambda: "does not accept operations" in agent.log, 180, "the agent meets it")
        enough.touch()
        if cluster.is_needed:
            await asyncio.to_thread(mend)
        puts = await published(fleet, agent)
        if worker is not None:
            await takes_effect(fleet, puts)
            await stop(worker)
        if not cluster.is_needed:
            await asyncio.to_thread(mend)
        await fleet.drain()
        later = {partition_of(one, cluster.partitions) for one in effect_instances(fleet, before)}
        assert number in later, "the partition was in use"
        check(fleet, puts)


async def test_a_master_that_lost_its_replica(redis_cluster: RedisCluster, redis_prefix: str) -> None:
    """What no replica takes is stored once, however often it is sent; later attempts take no time."""
    key = stream_of(redis_prefix, 0)
    master = await asyncio.to_thread(redis_cluster.master_of, key)
    replica = await asyncio.to_thread(redis_cluster.replica_of, master)
    async with RedisBroker(redis_url_of(redis_cluster, redis_prefix)).publishing() as end:
        await end.publish(0, [b"1"])
        replica.kill()
        for _ in range(5):
            async with asyncio.timeout(3):
                with pytest.raises(BrokerError, match="replicas"):
                    await end.publish(0, [b"2"])
        assert await asyncio.to_thread(master.command, "XLEN", key) == 2
        await asyncio.to_thread(redis_cluster.restart, replica)

        async def is_published() -> bool:
            with suppress(BrokerError):  # the replica has to catch up first
                await end.publish(0, [b"2"])
                return True
            return False

        await until(is_published, 180)
        assert await asyncio.to_thread(master.command, "XLEN", key) == 3
