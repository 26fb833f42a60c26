"""Two workers killed over and over under load, at an API that loses replies, fails and throttles.

``PREFACTOR_TEST_FULL=1`` runs the size that was promised: 40,000 operations, each worker killed six times.
"""

import asyncio
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.fleet.scenario import check, published, stop, takes_effect
from tests.support.fleet import Child, Fleet, running_fleet, until
from tests.support.watching import FULL, dead_letters, on_redis

FAULTS = ("lost-reply:rate=0.03", "error:rate=0.03,status=500", "throttle:rate=0.01,retry_after=1")


@dataclass(frozen=True)
class Size:
    """How much of it.

    Attributes:
        instances: Agent instances, of two agents.
        spans: Spans of each; an instance has two operations for each, and three of its own.
        pace: Seconds between an instance's nests of four spans.
        kills: How often each of the two workers is killed.
    """

    instances: int
    spans: int
    pace: float
    kills: int

    @property
    def operations(self) -> int:
        return self.instances * (3 + 2 * self.spans)


FULL_SIZE = Size(instances=200, spans=99, pace=0.5, kills=6)  # 40,200 operations
USUAL_SIZE = Size(instances=50, spans=32, pace=0.5, kills=2)  # 3,350 operations
SMALL_SIZE = Size(instances=30, spans=24, pace=0.1, kills=1)

WITHIN = 540.0 if FULL else 110.0


def faults() -> tuple[str, ...]:
    return tuple(word for fault in FAULTS for word in ("--fault", fault))


async def start_worker(fleet: Fleet) -> Child:
    return await fleet.worker("--batch", "50")  # more requests, so more of them meet a fault


def says(worker: Child, words: str) -> bool:
    return words in worker.log


async def killed_over_and_over(fleet: Fleet, size: Size) -> None:
    """Have agents put everything, and both workers killed meanwhile."""
    half = ("--instances", str(size.instances // 2), "--tasks", "50", "--spans", str(size.spans))
    agents = [await fleet.agent(*half, "--pace", str(size.pace)) for _ in range(2)]
    workers = [await start_worker(fleet) for _ in range(2)]
    done = 0
    for kill in range(2 * size.kills):
        victim = workers[kill % 2]
        await until(partial(says, victim, "taking part in the fleet"), 180, "it takes part before it dies")
        goal = max(done + 20, int(size.operations * 0.8 * (kill + 1) / (2 * size.kills)))
        await until(partial(fleet.effects_are, goal), 180, f"work goes on after {done}")
        await victim.kill()
        done = await fleet.effects()
        workers[kill % 2] = await start_worker(fleet)
    for agent in agents:
        assert await published(fleet, agent, 300) == size.operations // 2
    await takes_effect(fleet, size.operations, 120)
    for worker in workers:
        await until(partial(says, worker, "takes from"), 180, "it listens to signals")
    await stop(*workers)
    await fleet.drain()


@pytest.mark.timeout(600)
async def test_killed_over_and_over_at_a_faulty_api(transport_url: str, tmp_path: Path) -> None:
    size = FULL_SIZE if FULL else USUAL_SIZE
    async with running_fleet(transport_url, tmp_path, *faults()) as fleet, asyncio.timeout(WITHIN):
        await killed_over_and_over(fleet, size)
        assert await dead_letters(fleet) == []
        check(fleet, size.operations)


@on_redis
async def test_without_deduplication_effects_are_doubled(transport_url: str, tmp_path: Path) -> None:
    """The control: the faults bite, and only what the API remembers keeps effects single."""
    async with running_fleet(transport_url, tmp_path, "--no-dedup", *faults()) as fleet, asyncio.timeout(300):
        await killed_over_and_over(fleet, SMALL_SIZE)
        figures = fleet.figures()
    assert figures.doubled > 0
    assert (figures.lost, figures.unexpected) == (0, 0)
