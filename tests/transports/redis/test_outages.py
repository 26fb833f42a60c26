"""Outages longer than a lease are nobody's crash, and are not held against what was being handled."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from prefactor_core.broker.driver import ConsumingEnd, Partition
from tests.support.brokers.redis_server import RedisServer
from tests.transports.redis.children import child
from tests.transports.redis.conftest import Ends, eventually, held_against, owned, persistently, read

MakeEnds = Callable[[str], Ends]
OUTAGES = 9
Outage = Callable[[RedisServer], AbstractAsyncContextManager[None]]
OPTIONS = "lease=1&timeout=0.5"


@asynccontextmanager
async def frozen(server: RedisServer) -> AsyncIterator[None]:
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


@asynccontextmanager
async def stopped(server: RedisServer) -> AsyncIterator[None]:
    await asyncio.to_thread(server.kill)
    try:
        yield
    finally:
        await asyncio.to_thread(server.start)


async def begun(partition: Partition) -> bool:
    """Begin its one operation; return whether it may be handled, and is not to be dead-lettered."""
    (message,) = await read(partition, 1)
    return await partition.begin(message)


async def lost(partition: Partition) -> None:
    await eventually(lambda: not partition.held, "the lease is over")


async def tell(worker: ConsumingEnd) -> None:
    async def once() -> None:
        await worker.fleet()

    await persistently(once)


@pytest.mark.parametrize("outage", [frozen, stopped])
async def test_outages_of_the_server(
    redis_server: RedisServer,
    ends_at: MakeEnds,
    outage: Callable[[RedisServer], AbstractAsyncContextManager[None]],
) -> None:
    ends = ends_at(redis_server.url)
    await ends.publishing().publish(0, [b"1"])
    workers = [ends.consuming(OPTIONS) for _ in range(2)]
    clock = asyncio.get_running_loop().time
    partition = await owned(workers[0])
    dead_letters, blamed = int(not await begun(partition)), 0
    for number in range(1, OUTAGES + 1):
        async with outage(redis_server):
            over = clock() + 1.1
            await lost(partition)
            await partition.release()  # which cannot be told
            await asyncio.sleep(max(0.0, over - clock()))  # the broker ends it later than its owner
        await tell(workers[number % 2])
        successor = await owned(workers[number % 2])
        dead_letters += not await begun(successor)
        blamed += bool((await held_against(redis_server, ends.prefix))[1])
        await tell(workers[(number + 1) % 2])  # the owner is back
        partition = successor
    await partition.release()
    left = await held_against(redis_server, ends.prefix)
    last = await owned(workers[0])
    # Figures, not timed tests: shown with -rP.
    sys.stdout.write(f"{OUTAGES} outages: {dead_letters} dead letters, {blamed} times blamed, left {left}\n")
    assert dead_letters == 0
    assert left == ({}, {})
    assert not last.isolated


async def test_outages_of_a_worker(redis_server: RedisServer, ends_at: MakeEnds) -> None:
    ends = ends_at(redis_server.url)
    await ends.publishing().publish(0, [b"1"])
    successor = ends.consuming(OPTIONS)
    dead_letters = 0
    left: object = None
    async with child(f"{ends.url}?prefix={ends.prefix}&lease=1") as worker:
        for _ in range(OUTAGES):
            dead_letters += not await worker.says("begun")
            worker.process.send_signal(signal.SIGSTOP)
            partition = await owned(successor)
            dead_letters += not await begun(partition)
            worker.process.send_signal(signal.SIGCONT)
            await worker.says("back")
            await partition.release()
            left = await held_against(redis_server, ends.prefix)
            await worker.goes_on()
        await worker.says("begun")
    sys.stdout.write(f"{OUTAGES} outages: {dead_letters} dead letters, left {left}\n")
    assert dead_letters == 0
    assert left == ({}, {})
