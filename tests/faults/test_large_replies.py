"""Replies that are far too large, and large ones that are right: what they cost a sender's process.

The bound on memory is generous.
"""

import asyncio
import json
import sys
from typing import Any

import pytest

from tests.support.hostile_api import ECHOED, HOSTILE, large_api

SECONDS = 5.0
MOST_MIB = 250
"""A tenth of what a gzip bomb of 1 GB came to without a bound."""


async def run_sender(role: str, url: str, seconds: float) -> tuple[dict[str, Any], list[str]]:
    """Run a sender as a process; return what it reports and what it logged."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.memory_program", role, url, str(seconds),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(90):
            out, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode()
    report: dict[str, Any] = json.loads(out)
    return report, errors.decode().splitlines()


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("role", ["agent", "worker"])
async def test_memory_stays_flat_and_the_log_quiet(role: str, kind: str) -> None:
    async def meet(seconds: float) -> tuple[int, dict[str, Any], list[str]]:
        async with large_api(HOSTILE[kind]) as (api, url):
            report, log = await run_sender(role, url, seconds)
            return api.connections, report, log

    connections, report, log = await meet(SECONDS)
    if connections < 2:  # a busy machine gets to no second request in that time
        connections, report, log = await meet(10 * SECONDS)
    assert connections > 1
    assert report["delivered"] == 0
    assert report["grown_mib"] < MOST_MIB
    assert 0 < len(log) < 10


@pytest.mark.parametrize("payload", ECHOED)
async def test_a_reply_that_echoes_25_mb_settles_everything_at_once(payload: str) -> None:
    async with large_api(payload=ECHOED[payload]) as (api, url):
        report, log = await run_sender("worker", url, 30)
        requests = api.requests
    assert report["delivered"] == 250
    assert requests == [250]
    assert report["grown_mib"] < MOST_MIB
    assert log == []
