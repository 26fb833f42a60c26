"""Agents, the SDK, real HTTP and the emulator in its own process."""

from pathlib import Path

import pytest

from tests.client.load import check_everything, run_load
from tests.support.emulator import running_emulator

FAULTS = ("lost-reply:rate=0.1", "error:rate=0.1", "throttle:rate=0.05,retry_after=1")


@pytest.mark.parametrize("latency_ms", [0, 20])
async def test_a_whole_load_arrives_complete_in_order_and_once(tmp_path: Path, latency_ms: int) -> None:
    async with running_emulator(tmp_path, "--fault", f"latency:ms={latency_ms}") as emulator:
        queue, load = await run_load(emulator, instances=20, tasks=10, turns=1)
        await check_everything(emulator, queue, load)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_lost_replies_errors_and_throttling_change_no_effect(tmp_path: Path, seed: int) -> None:
    options = [word for fault in FAULTS for word in ("--fault", fault)]
    async with running_emulator(tmp_path, *options, "--seed", str(seed)) as emulator:
        queue, load = await run_load(emulator, instances=20, tasks=10, turns=1)
        await check_everything(emulator, queue, load)
        assert queue.dead_lettered == 0
