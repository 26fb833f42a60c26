"""A master behind sentinels killed: agent and worker go on, and what was confirmed arrives."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.support.brokers.sentinel import RedisSentinel
from tests.support.fleet import Figures, running_fleet, until


@pytest.mark.parametrize("working", [True, False], ids=["drained meanwhile", "drained afterwards"])
async def test_a_master_killed(
    redis_sentinel: RedisSentinel, redis_prefix: str, tmp_path: Path, working: bool
) -> None:
    url = f"{redis_sentinel.url}?prefix={redis_prefix}&replicas=1&lease=3"
    async with running_fleet(url, tmp_path) as fleet:
        agent = await fleet.agent("--instances", "40", "--spans", "40", "--pace", "0.25")
        worker = await fleet.worker() if working else None
        if worker is not None:
            await until(lambda: fleet.effects_are(500), 30, "the worker works")
        else:
            await until(lambda: fleet.puts() > 500, 20, "the agent publishes")
        killed = await asyncio.to_thread(redis_sentinel.kill_master)
        await until(lambda: "does not take operations" in agent.log, 20, "the agent meets the dead master")
        await asyncio.to_thread(redis_sentinel.wait_settled)
        assert await asyncio.to_thread(redis_sentinel.master) is not killed
        # A master without a replica confirms nothing where one is asked for: the dead server is needed back.
        await asyncio.to_thread(redis_sentinel.restart, killed)
        report = await fleet.report(agent)
        assert (report["left"], report["unconfirmed"], report["dropped"]) == (0, 0, {})
        if worker is not None:
            await until(lambda: fleet.effects_are(report["put"]), 30, "everything takes effect")
            worker.signal(signal.SIGTERM)
            assert await worker.ended(30) == 0, worker.log
        await fleet.drain()
        assert fleet.figures() == Figures(report["put"], lost=0, doubled=0, out_of_order=0, unexpected=0)
