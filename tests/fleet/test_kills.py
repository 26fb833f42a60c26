"""Two workers killed over and over under load, at an API that loses replies, fails and throttles.

That such faults bite is shown in ``tests/faults``. ``PREFACTOR_TEST_FULL=1`` runs the size that was promised:
40,000 operations, each worker killed six times.
"""

import asyncio
from functools import partial
from pathlib import Path

from tests.fleet.scenario import check, published, stop, takes_effect
from tests.support.fleet import Child, Fleet, running_fleet, until
from tests.support.watching import FULL, dead_letters

FAULTS = (
    *("--fault", "lost-reply:rate=0.03"),
    *("--fault", "error:rate=0.03,status=500"),
    *("--fault", "throttle:rate=0.01,retry_after=1"),
)
INSTANCES, SPANS, KILLS = (200, 99, 6) if FULL else (50, 32, 2)
"""Instances of two agents, spans of each, and kills of each of the two workers."""
OPERATIONS = INSTANCES * (3 + 2 * SPANS)


async def start_worker(fleet: Fleet) -> Child:
    return await fleet.worker("--batch", "50")  # more requests, so more of them meet a fault


def says(worker: Child, words: str) -> bool:
    return words in worker.log


async def test_killed_over_and_over_at_a_faulty_api(transport_url: str, tmp_path: Path) -> None:
    half = ("--instances", str(INSTANCES // 2), "--tasks", "50", "--spans", str(SPANS), "--pace", "0.5")
    async with running_fleet(transport_url, tmp_path, *FAULTS) as fleet, asyncio.timeout(540):
        agents = [await fleet.agent(*half) for _ in range(2)]
        workers = [await start_worker(fleet) for _ in range(2)]
        done = 0
        for kill in range(2 * KILLS):
            victim = workers[kill % 2]
            await until(
                partial(says, victim, "taking part in the fleet"), 180, "it takes part before it dies"
            )
            goal = max(done + 20, int(OPERATIONS * 0.8 * (kill + 1) / (2 * KILLS)))
            await until(partial(fleet.effects_are, goal), 180, f"work goes on after {done}")
            await victim.kill()
            done = await fleet.effects()
            workers[kill % 2] = await start_worker(fleet)
        for agent in agents:
            assert await published(fleet, agent, 300) == OPERATIONS // 2
        await takes_effect(fleet, OPERATIONS, 120)
        for worker in workers:
            await until(partial(says, worker, "takes from"), 180, "it listens to signals")
        await stop(*workers)
        await fleet.drain()
        assert await dead_letters(fleet) == []
        check(fleet, OPERATIONS)
