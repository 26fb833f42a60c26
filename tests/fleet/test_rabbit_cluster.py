"""The leader of a RabbitMQ partition's queue killed: what was confirmed arrives, once and in order."""

import asyncio
import signal
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from prefactor_core.broker.envelope import partition_of
from prefactor_emulator.verify_files import read_effects, read_puts
from prefactor_rabbitmq.broker import RabbitBroker
from prefactor_rabbitmq.names import Names
from tests.support.brokers.rabbitmq_cluster import RabbitCluster
from tests.support.fleet import Figures, Fleet, running_fleet, until

PARTITIONS = 4  # to declare sixteen quorum queues takes a cluster of one machine seconds


def url_of(cluster: RabbitCluster, prefix: str) -> str:
    """Name every node: the one that is killed may be the one that agent or worker is connected to."""
    hosts = ",".join(urlsplit(url).netloc.rpartition("@")[2] for url in cluster.urls)
    return f"amqp://guest:guest@{hosts}/?prefix={prefix}&partitions={PARTITIONS}&heartbeat=2"


async def declare(fleet: Fleet) -> None:
    """Have all queues there before anything of it is killed."""
    end = RabbitBroker(fleet.url).publishing()
    assert await end.partitions() == PARTITIONS
    await end.disconnect()


def instances(fleet: Fleet, first: int = 0) -> list[str]:
    """Return the instances of the effects from one on, each once, in the order of their first."""
    effects = list(read_effects(str(fleet.emulator.database)))
    return list(dict.fromkeys(effect.instance_id for effect in effects[first:]))


@pytest.mark.parametrize("working", [True, False], ids=["drained meanwhile", "drained afterwards"])
async def test_a_leader_killed_under_load(
    rabbit_cluster: RabbitCluster, amqp_prefix: str, tmp_path: Path, working: bool
) -> None:
    async with running_fleet(url_of(rabbit_cluster, amqp_prefix), tmp_path) as fleet:
        await declare(fleet)
        agent = await fleet.agent("--instances", "20", "--spans", "80", "--pace", "0.3")
        worker = await fleet.worker() if working else None
        if worker is not None:
            await until(lambda: fleet.effects_are(500), 30, "the worker works")
            instance = instances(fleet)[-1]  # it has only begun
        else:
            await until(lambda: fleet.puts() > 500, 20, "the agent publishes")
            instance = list(read_puts(str(tmp_path / "puts-0.jsonl")))[-1].instance_id
        number = partition_of(instance, PARTITIONS)
        queue = Names(amqp_prefix).partition(number)
        leader = await asyncio.to_thread(rabbit_cluster.leader_of, queue)
        before = await fleet.effects()
        leader.kill()
        assert await asyncio.to_thread(rabbit_cluster.leader_of, queue) is not leader
        report = await fleet.report(agent)  # two of three nodes are enough to confirm
        assert (report["left"], report["unconfirmed"], report["dropped"]) == (0, 0, {})
        if worker is not None:
            await until(lambda: fleet.effects_are(report["put"]), 40, "everything takes effect")
            worker.signal(signal.SIGTERM)
            assert await worker.ended(30) == 0, worker.log
        await asyncio.to_thread(rabbit_cluster.restart, leader)
        await fleet.drain()
        later = {partition_of(one, PARTITIONS) for one in instances(fleet, before)}
        assert number in later, "the partition was in use"
        assert fleet.figures() == Figures(report["put"], lost=0, doubled=0, out_of_order=0, unexpected=0)
