"""The API or the broker unavailable again and again: nothing is dead-lettered, whatever ends meanwhile.

An operation that crashes its workers must be found, and an outage must not look like one: workers are killed
in it, leases run out and connections break while operations are in flight, over and over, and none of it is
an operation's fault. A single partition makes it hard: its first operation is in flight each time.
``PREFACTOR_TEST_FULL=1`` has more operations, and all of it with sixteen partitions too.
"""

import asyncio
import signal
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from prefactor_emulator.model import OperationType
from prefactor_emulator.verify.files import read_puts
from tests.fleet.scenario import check, nothing_waits, published, stop, url_at
from tests.fleet.test_poison import check_killed, short, supervised
from tests.support.brokers.rabbitmq_server import RabbitServer
from tests.support.brokers.redis_server import RedisServer
from tests.support.fleet import Fleet, running_fleet, until
from tests.support.watching import FULL, Probed, dead_letters, fault_hits, probed_worker, set_faults

OUTAGES = 9
"""More than the three crashes and three attempts after which an operation is dead-lettered."""
RESTARTS = OUTAGES if FULL else 4
"""Of RabbitMQ, which takes its time."""
INSTANCES, SPANS = (60, 16) if FULL else (24, 8)
OPERATIONS = INSTANCES * (3 + 2 * SPANS)
BEGUN_SECONDS = 1.0
"""For what a worker does once it owns its partitions: it begins operations."""
LEASE_SECONDS = 1.0
DRAIN_SECONDS = 300.0
"""Generous: isolated partitions are handled one operation at a time."""
UNAVAILABLE = "error:status=503"
"""The API takes no write, so that no outage of the broker ends with progress."""
PATIENT = ("--max-retries", "100")
"""It answers pings, so that failures of an isolated operation count as its own: that is not meant here."""

Outage = Callable[[Probed], Awaitable[None]]

pytestmark = pytest.mark.parametrize("partitions", [1, 16] if FULL else [1])


async def publish(fleet: Fleet) -> None:
    """Have an agent put everything, and end."""
    count = ("--instances", str(INSTANCES), "--tasks", str(INSTANCES), "--spans", str(SPANS))
    assert await published(fleet, await fleet.agent(*count)) == OPERATIONS


async def owned(worker: Probed, good: Callable[[float], bool]) -> bool:
    """Whether a worker answers, and owns as many partitions as it should."""
    if not await worker.answers("/healthz", 200):
        return False
    return await worker.metric_is("prefactor_partitions_owned", good)


async def has_begun(fleet: Fleet, worker: Probed) -> None:
    """Wait until a worker owns everything, and has begun what it found."""
    partitions = int(fleet.url.rpartition("=")[2])
    await until(lambda: owned(worker, lambda number: number == partitions), 180, "it owns all partitions")
    await asyncio.sleep(BEGUN_SECONDS)


async def check_all(fleet: Fleet) -> None:
    """Nothing is a dead letter, and everything has its one effect in its order."""
    assert [dead.reason for dead in await dead_letters(fleet)] == []
    check(fleet, OPERATIONS)


async def killed_in_the_outage(fleet: Fleet, outages: int) -> None:
    """Have workers killed at an API that answers 503, each of them once it has begun operations."""
    await set_faults(fleet.emulator, UNAVAILABLE)
    for _ in range(outages):
        worker = await probed_worker(fleet, *PATIENT)
        (before,) = await fault_hits(fleet.emulator)
        await has_begun(fleet, worker)
        await until(partial(asked_again, fleet, before), 180, "it asks the API")
        await worker.child.kill()
    await set_faults(fleet.emulator)


async def asked_again(fleet: Fleet, before: int) -> bool:
    """Whether the API has refused more requests than before."""
    return (await fault_hits(fleet.emulator))[0] > before


async def test_workers_killed_while_the_api_is_unavailable(
    transport_url: str, tmp_path: Path, partitions: int
) -> None:
    async with running_fleet(f"{short(transport_url)}&partitions={partitions}", tmp_path) as fleet:
        await publish(fleet)
        await killed_in_the_outage(fleet, OUTAGES)
        await fleet.drain()
        await check_all(fleet)


async def test_an_outage_does_not_hide_what_crashes_its_workers(
    transport_url: str, tmp_path: Path, partitions: int
) -> None:
    """The control: after the same outage, one poison operation is found, and it alone."""
    async with running_fleet(f"{short(transport_url)}&partitions={partitions}", tmp_path) as fleet:
        await publish(fleet)
        puts = list(read_puts(str(fleet._puts[0])))
        poison = next(put for put in puts[100:] if put.type is OperationType.FINISH_SPAN)
        await killed_in_the_outage(fleet, 2)
        worker, _ = await supervised(fleet, poison.key, OPERATIONS)
        await stop(worker.child)
        await check_killed(fleet, poison.key, OPERATIONS)


# -- one worker, which never ends


async def survives(fleet: Fleet, outage: Outage, outages: int = OUTAGES) -> None:
    """Have one worker meet an outage over and over, at an API that is unavailable too; then all is well."""
    await publish(fleet)
    await set_faults(fleet.emulator, UNAVAILABLE)
    worker = await probed_worker(fleet, *PATIENT)
    for _ in range(outages):
        await has_begun(fleet, worker)
        await outage(worker)
    await has_begun(fleet, worker)
    await set_faults(fleet.emulator)
    await until(lambda: drained(fleet), DRAIN_SECONDS, "everything is delivered, or a dead letter")
    await stop(worker.child)
    await check_all(fleet)


async def drained(fleet: Fleet) -> bool:
    """Whether everything has taken effect, or something is a dead letter and nothing waits."""
    effects = await fleet.effects()
    if effects >= OPERATIONS:
        return True
    # A broker may count only what no worker has read yet, so that alone tells too little.
    return await nothing_waits(fleet) and effects + len(await dead_letters(fleet)) >= OPERATIONS


async def lost_everything(worker: Probed) -> None:
    """Wait until a worker knows that it owns nothing."""
    await until(lambda: owned(worker, lambda number: number == 0), 180, "it notices")


async def restarted(server: RedisServer | RabbitServer, longer: float, worker: Probed) -> None:
    """Kill a broker, and start it so much later than the worker has noticed."""
    await asyncio.to_thread(server.kill)
    await lost_everything(worker)
    await asyncio.sleep(longer)
    await asyncio.to_thread(server.start)


@pytest.mark.parametrize("outage", ["frozen", "restarted", "frozen worker"])
async def test_redis_or_its_worker_gone_longer_than_the_lease(
    redis_server: RedisServer, tmp_path: Path, partitions: int, outage: str
) -> None:
    async def frozen(worker: Probed) -> None:
        redis_server.freeze()
        await lost_everything(worker)
        await asyncio.sleep(LEASE_SECONDS)
        redis_server.thaw()

    async def frozen_worker(worker: Probed) -> None:
        worker.child.signal(signal.SIGSTOP)
        await asyncio.sleep(2 * LEASE_SECONDS)
        worker.child.signal(signal.SIGCONT)

    outages: dict[str, Outage] = {
        "frozen": frozen,
        "restarted": partial(restarted, redis_server, LEASE_SECONDS),
        "frozen worker": frozen_worker,
    }
    url = short(url_at(redis_server, f"innocents-{uuid.uuid4().hex[:8]}"))
    async with running_fleet(f"{url}&partitions={partitions}", tmp_path) as fleet:
        await survives(fleet, outages[outage])


async def test_rabbitmq_restarted(rabbit_server: RabbitServer, tmp_path: Path, partitions: int) -> None:
    url = url_at(rabbit_server, f"innocents-{uuid.uuid4().hex[:8]}")
    async with running_fleet(f"{url}&partitions={partitions}", tmp_path) as fleet:
        await survives(fleet, partial(restarted, rabbit_server, 0.0), RESTARTS)
