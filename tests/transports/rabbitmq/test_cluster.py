"""A cluster of three nodes, of which one is killed."""

import asyncio
from collections.abc import AsyncGenerator

from prefactor_core.exceptions import BrokerError
from tests.support.brokers.rabbitmq_cluster import RabbitCluster
from tests.transports.rabbitmq.rig import RabbitRig
from tests.transports.rig import own, until


async def test_the_leader_of_a_partition_is_killed_under_load(
    rabbit_cluster: RabbitCluster, amqp_prefix: str
) -> None:
    hosts = ",".join(url.rpartition("@")[2].rstrip("/") for url in rabbit_cluster.urls)
    rig = RabbitRig(f"amqp://guest:guest@{hosts}/", amqp_prefix)
    options = "timeout=10&heartbeat=2"
    publishing, consuming = rig.publishing(options), rig.consuming(options)
    await publishing.partitions()
    bodies = [b"%05d" % number for number in range(3_000)]
    sent = 0
    killed = asyncio.Event()

    async def publish() -> None:
        nonlocal sent
        while sent < len(bodies):
            if sent >= 1_000 and not killed.is_set():
                await asyncio.to_thread(rabbit_cluster.kill_leader_of, f"{amqp_prefix}.0")
                killed.set()
            try:
                batch = bodies[sent : sent + 100]
                await publishing.publish(0, batch)
                sent += len(batch)
            except BrokerError as error:
                sent += error.confirmed
                await asyncio.sleep(0.1)

    seen: list[bytes] = []

    async def consume() -> None:
        known: set[bytes] = set()
        while len(known) < len(bodies):
            owner = await until(lambda: own(consuming), "the partition", 30)
            try:
                while owner.held and len(known) < len(bodies):
                    messages = await owner.read(200, 1 << 20)
                    seen.extend(message.data for message in messages if message.data not in known)
                    known.update(message.data for message in messages)
                    await owner.settle(messages)
            except BrokerError:
                continue

    async with asyncio.timeout(90), asyncio.TaskGroup() as group:
        group.create_task(publish())
        group.create_task(consume())
    assert killed.is_set()
    assert seen == bodies
    assert (await consuming.fleet()).size == 1

    async def empty() -> bool:
        return await rig.consuming(options).backlog() == 0

    await until(empty, "an empty queue: what was settled is gone")
    await rig.disconnect()


async def test_dead_letters_are_read_though_the_node_of_their_last_reader_is_down(
    rabbit_cluster: RabbitCluster, amqp_prefix: str
) -> None:
    queue = f"{amqp_prefix}.dead"
    first = rabbit_cluster.nodes[0]
    rig = RabbitRig(first.url, amqp_prefix)
    letters = [b"%03d" % number for number in range(100)]
    publishing = await rig.store_letters(letters)
    leader = await asyncio.to_thread(rabbit_cluster.leader_of, queue)
    node = next(node for node in rabbit_cluster.nodes if node is not leader)
    reading = rig.dead_letters(url=node.url).read()
    assert isinstance(reading, AsyncGenerator)
    for data in letters[:50]:
        assert (await anext(reading)).data == data
    await asyncio.to_thread(node.kill)
    async with rig.dead_letters("timeout=10", url=leader.url) as end:
        found = [letter async for letter in end.read()]
        assert [letter.data for letter in found] == letters
        await end.remove(found)
        assert await end.count() == 0
    await publishing.disconnect()
