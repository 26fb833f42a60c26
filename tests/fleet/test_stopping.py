"""Stopping a worker: under load, twice, during an outage; and what one costs that has nothing to do.

``PREFACTOR_TEST_FULL=1`` stops ten in the middle of a load, which was promised.
"""

import asyncio
import re
import signal
import sys
from functools import partial

from tests.support.fleet import Child, Figures, Fleet, until
from tests.support.watching import (
    FULL,
    cpu_seconds,
    dead_letters,
    on_rabbitmq,
    on_redis,
    probed_worker,
    set_faults,
)

GRACE_SECONDS = 10.0
STOPS = 10 if FULL else 5
SPANS = "36" if FULL else "20"
IDLE_SECONDS = 2.0


async def stopped(worker: Child) -> float:
    """Have a worker stop cleanly, and return the seconds that it took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    worker.signal(signal.SIGTERM)
    assert await worker.ended(GRACE_SECONDS + 5) == 0, worker.log
    seconds = loop.time() - began
    assert seconds < GRACE_SECONDS
    return seconds


def account(worker: Child) -> tuple[int, int, int, int]:
    """Return what a worker says it has received, settled, dead-lettered and given back."""
    words = r"stopped: (\d+) received, (\d+) settled, (\d+) dead-lettered, (\d+) given back"
    found = re.search(words, worker.log)
    assert found is not None, worker.log
    received, settled, dead, released = (int(number) for number in found.groups())
    assert received == settled + dead + released
    return received, settled, dead, released


async def test_many_times_in_the_middle_of_a_load(fleet: Fleet) -> None:
    await set_faults(fleet.emulator, "latency:ms=60,jitter_ms=30")  # something is always under way
    agent = await fleet.agent("--instances", "80", "--tasks", "80", "--spans", SPANS, "--pace", "0.4")
    seconds: list[float] = []
    settled = released = 0
    for _ in range(STOPS):
        worker = await fleet.worker("--grace", str(GRACE_SECONDS), "--batch", "20", "--concurrency", "2")
        more = await fleet.effects() + 100
        await until(partial(fleet.effects_are, more), 30, f"{more} effects")
        seconds.append(await stopped(worker))
        _, its_settled, its_dead, its_given_back = account(worker)
        assert its_dead == 0
        settled += its_settled
        released += its_given_back
    report = await fleet.report(agent)
    assert (report["left"], report["dropped"]) == (0, {})
    assert await fleet.effects() < report["put"], "the last stop was in the middle, too"
    await set_faults(fleet.emulator)
    settled += account(await fleet.drain())[1]
    # Figures, not timed tests: shown with -rP.
    sys.stdout.write(f"{report['put']} operations, {released} given back, most seconds {max(seconds):.2f}\n")
    assert fleet.figures() == Figures(report["put"], lost=0, doubled=0, out_of_order=0, unexpected=0)
    # What was settled is off the broker, by one of them; an acknowledgement can be too late for RabbitMQ.
    assert report["put"] <= settled <= report["put"] * 1.01
    assert await dead_letters(fleet) == []


@on_redis
async def test_a_second_signal_ends_at_once(fleet: Fleet) -> None:
    """Also while a request is under way that takes for ever."""
    report = await fleet.report(await fleet.agent("--instances", "20", "--spans", "20"))
    await set_faults(fleet.emulator, "latency:ms=60000")
    probed = await probed_worker(fleet, "--grace", "60")
    worker = probed.child
    await until(lambda: probed.answers("/healthz", 200), 20)
    await until(lambda: probed.metric_is("prefactor_operations_held", lambda held: held > 0), 20)
    worker.signal(signal.SIGTERM)
    await until(lambda: "SIGTERM" in worker.log, 10, "it is told")
    assert worker.process.returncode is None, worker.log
    worker.signal(signal.SIGTERM)
    assert await worker.ended(2) == 128 + signal.SIGTERM
    await set_faults(fleet.emulator)
    await fleet.drain()
    assert fleet.figures() == Figures(report["put"], lost=0, doubled=0, out_of_order=0, unexpected=0)


@on_rabbitmq
async def test_in_the_middle_of_an_outage(fleet: Fleet) -> None:
    report = await fleet.report(await fleet.agent("--instances", "20", "--spans", "20"))
    await set_faults(fleet.emulator, "away:")
    worker = await fleet.worker("--grace", "4")
    await until(lambda: "the API is unavailable" in worker.log, 20, "it waits for the API")
    assert await stopped(worker) < 4
    _, settled, dead, _ = account(worker)
    assert (settled, dead) == (0, 0)
    await set_faults(fleet.emulator)
    await fleet.drain()
    assert fleet.figures() == Figures(report["put"], lost=0, doubled=0, out_of_order=0, unexpected=0)


@on_redis
async def test_a_request_that_takes_longer_than_the_grace_period(fleet: Fleet) -> None:
    """It is cut off, and whoever gets its operations knows that they may have had their effect."""
    report = await fleet.report(await fleet.agent("--instances", "20", "--spans", "20"))
    await set_faults(fleet.emulator, "latency:ms=60000")
    probed = await probed_worker(fleet, "--grace", "2")
    await until(lambda: probed.answers("/healthz", 200), 20)
    await until(lambda: probed.metric_is("prefactor_operations_held", lambda held: held > 0), 20)
    assert await stopped(probed.child) < 2.5
    await set_faults(fleet.emulator)
    await fleet.drain()
    assert fleet.figures() == Figures(report["put"], lost=0, doubled=0, out_of_order=0, unexpected=0)


async def test_without_work_it_waits_without_burning_a_core(fleet: Fleet) -> None:
    probed = await probed_worker(fleet)
    await until(lambda: probed.answers("/readyz", 200), 30, "it has taken its partitions")
    before = cpu_seconds(probed.child.process.pid)
    await asyncio.sleep(IDLE_SECONDS)
    used = (cpu_seconds(probed.child.process.pid) - before) / IDLE_SECONDS
    # Figures, not timed tests: shown with -rP.
    sys.stdout.write(f"{used:.1%} of a core\n")
    assert used < 0.1
    await stopped(probed.child)
