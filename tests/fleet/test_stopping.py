"""Stopping a worker: under load, twice, during an outage; and what one costs that has nothing to do.

``PREFACTOR_TEST_FULL=1`` stops ten in the middle of a load, which was promised.
"""

import asyncio
import re
import signal

from tests.fleet.scenario import check, published, stop, takes_effect
from tests.support.fleet import Child, Fleet, until
from tests.support.watching import (
    FULL,
    Probed,
    cpu_seconds,
    dead_letters,
    on_rabbitmq,
    on_redis,
    probed_worker,
    set_faults,
)

GRACE_SECONDS = 50.0
STOPS = 10 if FULL else 5
SPANS = "36" if FULL else "20"
IDLE_SECONDS = 2.0
ENDLESS = "latency:ms=60000"


async def stopped(worker: Child) -> float:
    """Have a worker stop cleanly, and return the seconds that it took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await stop(worker, within=GRACE_SECONDS + 5)
    seconds = loop.time() - began
    assert seconds < GRACE_SECONDS
    return seconds


def account(worker: Child) -> tuple[int, int]:
    """Return how many operations a worker says it has settled and dead-lettered; its account adds up."""
    words = ("received", "settled .*", "superseded", "dead-lettered", "released")
    found = re.search("stopped: " + ", ".join(rf"(\d+) {word}" for word in words), worker.log)
    assert found is not None, worker.log
    received, settled, superseded, dead, released = (int(number) for number in found.groups())
    assert received == settled + superseded + dead + released
    return settled, dead


async def test_many_times_in_the_middle_of_a_load(fleet: Fleet) -> None:
    await set_faults(fleet.emulator, "latency:ms=60,jitter_ms=30")  # something is always under way
    agent = await fleet.agent("--instances", "80", "--tasks", "80", "--spans", SPANS, "--pace", "0.4")
    settled = 0
    for _ in range(STOPS):
        worker = await fleet.worker("--grace", str(GRACE_SECONDS), "--batch", "20", "--concurrency", "2")
        await takes_effect(fleet, await fleet.effects() + 100)
        await stopped(worker)
        its_settled, its_dead = account(worker)
        assert its_dead == 0
        settled += its_settled
    puts = await published(fleet, agent)
    assert await fleet.effects() < puts, "the last stop was in the middle, too"
    await set_faults(fleet.emulator)
    settled += account(await fleet.drain())[0]
    check(fleet, puts)
    # What was settled is off the broker, by one of them; an acknowledgement can be too late for RabbitMQ.
    assert puts <= settled <= puts * 1.01
    assert await dead_letters(fleet) == []


async def publish(fleet: Fleet, *faults: str) -> int:
    """Have everything at the broker before the API misbehaves; return how much it is."""
    puts = await published(fleet, await fleet.agent("--instances", "20", "--spans", "20"))
    await set_faults(fleet.emulator, *faults)
    return puts


async def drained(fleet: Fleet, puts: int) -> None:
    """With the API well again, the next worker delivers everything."""
    await set_faults(fleet.emulator)
    await fleet.drain()
    check(fleet, puts)


async def in_a_request(fleet: Fleet, grace: str) -> Probed:
    """Return a worker that has sent a request which takes for ever."""
    probed = await probed_worker(fleet, "--grace", grace)
    await until(lambda: probed.answers("/healthz", 200), 180)
    await until(lambda: probed.metric_is("prefactor_operations_prefetched", lambda held: held > 0), 180)
    return probed


@on_redis
async def test_a_second_signal_ends_at_once(fleet: Fleet) -> None:
    """Also while a request is under way that takes for ever."""
    puts = await publish(fleet, ENDLESS)
    worker = (await in_a_request(fleet, "60")).child
    worker.signal(signal.SIGTERM)
    await until(lambda: "SIGTERM" in worker.log, 180, "it is told")
    assert worker.process.returncode is None, worker.log
    worker.signal(signal.SIGTERM)
    assert await worker.ended(50) == 128 + signal.SIGTERM
    await drained(fleet, puts)


@on_redis
async def test_a_request_that_takes_longer_than_the_grace_period(fleet: Fleet) -> None:
    """It is cut off, and the next owner of its operations knows that they may have had their effect."""
    puts = await publish(fleet, ENDLESS)
    await stopped((await in_a_request(fleet, "2")).child)
    await drained(fleet, puts)


@on_rabbitmq
async def test_in_the_middle_of_an_outage(fleet: Fleet) -> None:
    puts = await publish(fleet, "away:")
    # A grace period that is longer than the stop may take: it does not wait for the API.
    worker = await fleet.worker("--grace", "60")
    await until(lambda: "is unavailable, and everything waits" in worker.log, 180, "it waits for the API")
    await stopped(worker)
    assert account(worker) == (0, 0)
    await drained(fleet, puts)


async def test_without_work_it_waits_without_burning_a_core(fleet: Fleet) -> None:
    probed = await probed_worker(fleet)
    await until(lambda: probed.answers("/readyz", 200), 180, "it has taken its partitions")
    before = cpu_seconds(probed.child.process.pid)
    await asyncio.sleep(IDLE_SECONDS)
    assert (cpu_seconds(probed.child.process.pid) - before) / IDLE_SECONDS < 0.1
    await stopped(probed.child)
