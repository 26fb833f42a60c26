"""A master of a Redis Cluster killed: what a replica had confirmed arrives, once and in order."""

import asyncio
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from prefactor_core.broker.envelope import partition_of
from prefactor_core.exceptions import BrokerError
from prefactor_emulator.verify_files import read_effects
from prefactor_redis.broker import RedisBroker
from prefactor_redis.keys import Keys
from tests.support.brokers.redis_cluster import RedisCluster
from tests.support.brokers.redis_server import RedisServer
from tests.support.fleet import Child, Figures, Fleet, running_fleet, until

PARTITIONS = 16


def url_of(cluster: RedisCluster, prefix: str) -> str:
    """Name every node: the one that is killed may be the first that would be asked."""
    nodes = ",".join(f"127.0.0.1:{node.port}" for node in cluster.nodes)
    return f"redis+cluster://{nodes}?prefix={prefix}&partitions={PARTITIONS}&replicas=1&lease=3"


def stream_of(prefix: str, partition: int) -> str:
    """Return the key of a partition's operations."""
    return Keys(prefix).of(partition).operations.decode()


def instances_from(fleet: Fleet, first: int) -> list[str]:
    """Return the instances of the effects from one on, each once, in the order of their first."""
    effects = list(read_effects(str(fleet.emulator.database)))
    return list(dict.fromkeys(effect.instance_id for effect in effects[first:]))


async def fail_over(cluster: RedisCluster, agent: Child, key: str) -> RedisServer:
    """Kill the master of a key, and wait until the agent has met that and the replica has its place."""
    killed = await asyncio.to_thread(cluster.kill_master_of, key)
    await until(lambda: "does not take operations" in agent.log, 20, "the agent meets the dead master")
    await asyncio.to_thread(cluster.wait_settled)
    assert await asyncio.to_thread(cluster.master_of, key) is not killed
    return killed


def check(fleet: Fleet, report: dict[str, Any]) -> None:
    """Everything that was put is confirmed, and took effect once and in order."""
    assert (report["left"], report["unconfirmed"], report["dropped"]) == (0, 0, {})
    assert report["delivered"] == report["put"]
    assert fleet.figures() == Figures(report["put"], lost=0, doubled=0, out_of_order=0, unexpected=0)


async def test_a_master_killed_between_agent_and_worker(
    redis_cluster: RedisCluster, redis_prefix: str, tmp_path: Path
) -> None:
    async with running_fleet(url_of(redis_cluster, redis_prefix), tmp_path) as fleet:
        agent = await fleet.agent("--instances", "20", "--spans", "80", "--pace", "0.3")
        worker = await fleet.worker()
        await until(lambda: fleet.effects_are(500), 30, "the worker works")
        instance = (await asyncio.to_thread(instances_from, fleet, 0))[-1]  # it has only begun
        number = partition_of(instance, PARTITIONS)
        key = stream_of(redis_prefix, number)
        before = await fleet.effects()
        killed = await fail_over(redis_cluster, agent, key)
        # A master without a replica confirms nothing where one is asked for: the dead node is needed back.
        await asyncio.to_thread(redis_cluster.restart, killed)
        report = await fleet.report(agent)
        await until(lambda: fleet.effects_are(report["put"]), 30, "everything takes effect")
        worker.signal(signal.SIGTERM)
        assert await worker.ended(30) == 0, worker.log
        await fleet.drain()
        later = await asyncio.to_thread(instances_from, fleet, before)
        assert number in {partition_of(one, PARTITIONS) for one in later}, "the partition was in use"
        check(fleet, report)


async def test_a_master_killed_with_everything_still_on_it(
    redis_cluster: RedisCluster, redis_prefix: str, tmp_path: Path
) -> None:
    """Nothing is drained before the kill: whatever was confirmed must be on the replica."""
    async with running_fleet(url_of(redis_cluster, redis_prefix), tmp_path) as fleet:
        agent = await fleet.agent("--instances", "60", "--spans", "40", "--pace", "0.02", "--bytes", "500")
        await until(lambda: fleet.puts() > 500, 20, "the agent publishes")
        killed = await fail_over(redis_cluster, agent, stream_of(redis_prefix, 0))
        await asyncio.to_thread(redis_cluster.restart, killed)
        report = await fleet.report(agent)
        await fleet.drain()
        check(fleet, report)


async def test_a_master_that_lost_its_replica(redis_cluster: RedisCluster, redis_prefix: str) -> None:
    """What no replica takes is stored once, however often it is tried; and the later tries take no time."""
    key = stream_of(redis_prefix, 0)
    master = await asyncio.to_thread(redis_cluster.master_of, key)
    replica = await asyncio.to_thread(redis_cluster.replica_of, master)
    end = RedisBroker(url_of(redis_cluster, redis_prefix)).publishing()
    try:
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

        await until(is_published, 30)
        assert await asyncio.to_thread(master.command, "XLEN", key) == 3
    finally:
        await end.disconnect()
