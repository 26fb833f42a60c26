"""Agents, the SDK, real HTTP and the emulator in its own process."""

from pathlib import Path

import pytest

from tests.client.load import check_everything, run_load
from tests.support.emulator import running_emulator

TROUBLE = [
    *("--fault", "lost-reply:rate=0.1"),
    *("--fault", "error:rate=0.1"),
    *("--fault", "throttle:rate=0.05,retry_after=1"),
]


@pytest.mark.parametrize(
    "options",
    [[], ["--fault", "latency:ms=20"], *([*TROUBLE, "--seed", seed] for seed in "123")],
    ids=["fast", "slow", *(f"in trouble, seed {seed}" for seed in "123")],
)
async def test_a_whole_load_arrives_complete_in_order_and_once(tmp_path: Path, options: list[str]) -> None:
    async with running_emulator(tmp_path, *options) as emulator:
        queue, load = await run_load(emulator, instances=20, tasks=10, turns=1)
        await check_everything(emulator, queue, load)
        assert queue.dead_lettered == 0
