"""A broker that is killed five times: each process says so in a few lines, and nothing is lost."""

import asyncio
import re
from collections import Counter
from pathlib import Path

from tests.fleet.scenario import check, published, stop, takes_effect, url_at
from tests.support.brokers.rabbitmq_server import RabbitServer
from tests.support.brokers.redis_server import RedisServer
from tests.support.fleet import Child, Fleet, running_fleet, until

RESTARTS = 5
MOST_LINES = 12 * RESTARTS
"""Generous: a worker needs about 4 a restart, and some to start, rebalance and stop."""
AWAY_SECONDS = 3.0
UNDER_WAY = 1_000
"""Operations; those of two or three seconds."""


def kinds(log: str) -> Counter[str]:
    """Count lines by what they say, without times, numbers and addresses."""
    lines = (re.sub(r"^\S+ \S+ (?=[A-Z]+ )", "", line) for line in log.splitlines())
    return Counter(re.sub(r"0x[0-9a-f]+|\d+(\.\d+)*", "N", line)[:150] for line in lines)


async def has_caught_up(fleet: Fleet) -> bool:
    """Whether what is not delivered yet is only what is under way: the last outage is over for all."""
    # By lines: the last may not be all in the file yet.
    puts = sum(path.read_bytes().count(b"\n") for path in fleet.folder.glob("puts-*.jsonl"))
    return await fleet.effects() >= puts - UNDER_WAY > 0


async def restart(server: RedisServer | RabbitServer, fleet: Fleet, agent: Child) -> None:
    """Kill the server under load and start it again; the fleet goes on by itself."""
    told = agent.log.count("works again")
    await until(lambda: has_caught_up(fleet), 180, "all goes on, after the last restart too")
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(AWAY_SECONDS)
    await asyncio.to_thread(server.start)
    # Else the next outage may be the same one to some.
    await until(lambda: agent.log.count("works again") > told, 180, "the agent says that it is back")


async def test_five_restarts_make_a_few_lines(server: RedisServer | RabbitServer, tmp_path: Path) -> None:
    enough = tmp_path / "enough"
    async with running_fleet(url_at(server), tmp_path) as fleet:
        workers = [await fleet.worker(), await fleet.worker()]
        agent = await fleet.agent(
            *("--instances", "24", "--tasks", "24", "--spans", "4", "--pace", "0.5", "--bytes", "300"),
            *("--until", str(enough)),
        )
        for _ in range(RESTARTS):
            await restart(server, fleet, agent)
        await until(lambda: has_caught_up(fleet), 180, "all goes on after the last restart")
        enough.touch()
        puts = await published(fleet, agent)
        await takes_effect(fleet, puts)
        await stop(*workers, within=40)
        check(fleet, puts)
        for name, child in {"worker 1": workers[0], "worker 2": workers[1], "agent": agent}.items():
            assert len(child.log.splitlines()) <= MOST_LINES, (name, kinds(child.log).most_common(25))
            assert "Traceback (most recent call last)" not in child.log, name
