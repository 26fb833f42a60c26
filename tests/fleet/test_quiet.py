"""A broker that is killed five times: each process says so in a few lines, and nothing is lost."""

import asyncio
import re
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support.brokers.rabbitmq_server import RabbitServer
from tests.support.brokers.redis_server import RedisServer
from tests.support.fleet import Child, Figures, Fleet, running_fleet, until

RESTARTS = 5
MOST_LINES = 12 * RESTARTS
"""Generous: a worker needs about 4 a restart, and some to start, rebalance and stop."""
AWAY_SECONDS = 3.0
UNDER_WAY = 1_000
"""Operations; those of two or three seconds."""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(params=["redis", "rabbitmq"])
def server(request: pytest.FixtureRequest) -> RedisServer | RabbitServer:
    """A broker of this test's own."""
    found = request.getfixturevalue(f"{'redis' if request.param == 'redis' else 'rabbit'}_server")
    assert isinstance(found, RedisServer | RabbitServer)
    return found


def kinds(log: str) -> Counter[str]:
    """Count lines by what they say, without times, numbers and addresses."""
    lines = (re.sub(r"^\S+ \S+ (?=[A-Z]+ )", "", line) for line in log.splitlines())
    return Counter(re.sub(r"0x[0-9a-f]+|\d+(\.\d+)*", "N", line)[:150] for line in lines)


def tell(name: str, log: str) -> tuple[int, int]:
    """Print what a process logged; return its lines and tracebacks."""
    lines, tracebacks = len(log.splitlines()), log.count("Traceback (most recent call last)")
    # Figures, not timed tests: shown with -rP.
    sys.stdout.write(f"{name}: {lines} lines, {tracebacks} tracebacks\n")
    for kind, count in kinds(log).most_common(25):
        sys.stdout.write(f"    {count:5d}  {kind}\n")
    return lines, tracebacks


async def has_caught_up(fleet: Fleet) -> bool:
    """Whether what is not delivered yet is only what is under way: the last outage is over for all."""
    # By lines: the last may not be all in the file yet.
    puts = sum(path.read_bytes().count(b"\n") for path in fleet.folder.glob("puts-*.jsonl"))
    return await fleet.effects() >= puts - UNDER_WAY > 0


async def restart(server: RedisServer | RabbitServer, fleet: Fleet, agent: Child) -> None:
    """Kill the server under load and start it again; the fleet goes on by itself."""
    told = agent.log.count("is back")
    await until(lambda: has_caught_up(fleet), 60, "all goes on, after the last restart too")
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(AWAY_SECONDS)
    await asyncio.to_thread(server.start)
    # Else the next outage may be the same one to some.
    await until(lambda: agent.log.count("is back") > told, 60, "the agent says that it is back")


async def stop(worker: Child) -> None:
    worker.signal(signal.SIGTERM)
    assert await worker.ended(40) == 0, worker.log


async def test_five_restarts_make_a_few_lines(server: RedisServer | RabbitServer, tmp_path: Path) -> None:
    options = "prefix=quiet&lease=3" if isinstance(server, RedisServer) else "prefix=quiet&heartbeat=2"
    enough = tmp_path / "enough"
    async with running_fleet(f"{server.url}?{options}", tmp_path) as fleet:
        workers = [await fleet.worker(), await fleet.worker()]
        agent = await fleet.agent(
            *("--instances", "24", "--tasks", "24", "--spans", "4", "--pace", "0.5", "--bytes", "300"),
            *("--until", str(enough)),
        )
        for _ in range(RESTARTS):
            await restart(server, fleet, agent)
        await until(lambda: has_caught_up(fleet), 60, "all goes on after the last restart")
        enough.touch()
        report = await fleet.report(agent)
        assert (report["left"], report["dropped"]) == (0, {})
        await until(lambda: fleet.effects_are(report["put"]), 60, "the backlog is drained")
        for worker in workers:
            await stop(worker)
        assert fleet.figures() == Figures(report["put"], lost=0, doubled=0, out_of_order=0, unexpected=0)
        sys.stdout.write(f"{report['put']} operations, {RESTARTS} restarts\n")
        logs = {"worker 1": workers[0].log, "worker 2": workers[1].log, "agent": agent.log}
        figures = {name: tell(name, log) for name, log in logs.items()}
        for name, (lines, tracebacks) in figures.items():
            assert lines <= MOST_LINES, name
            assert tracebacks == 0, name
