"""The API unavailable: at the start, in the middle, for good; and a buffer too small for it."""

import asyncio
import os
from collections import Counter
from pathlib import Path

import pytest

from prefactor_core import CloseSummary, OperationType, PrefactorCoreClient
from tests.client.load import VERSION, Load, client_for, close_and_compare, count, delivering, nowhere
from tests.support.emulator import Emulator
from tests.support.fleet import until
from tests.support.recording import Comparison, RecordingQueue, compare

OUTAGE_SECONDS = float(os.environ.get("PREFACTOR_TEST_OUTAGE_SECONDS", "3"))


_PUTS = 3 + 2 * 10
"""Operations of one run."""


async def run(client: PrefactorCoreClient) -> None:
    async with client.create_agent_instance(agent_version=VERSION) as instance:
        await instance.start()
        await Load().turn(instance)


async def test_close_returns_in_time_and_says_what_was_left(caplog: pytest.LogCaptureFixture) -> None:
    client = client_for(nowhere())
    await client.initialize()
    async with asyncio.timeout(30):
        for _ in range(5):
            await run(client)
        summary = await client.close(timeout=1)
    puts = 5 * _PUTS
    assert summary == CloseSummary(put=puts, delivered=0, dead_lettered=0, dropped={}, left=puts)
    assert f"closed with 0 of {puts} operations delivered" in caplog.text
    assert f"{puts} left" in caplog.text


async def test_an_outage_in_the_middle_costs_no_operation_and_no_retry(tmp_path: Path) -> None:
    async with delivering(tmp_path) as (emulator, client, queue):
        async with client.create_agent_instance(agent_version=VERSION) as instance:
            await instance.start()
            load = Load()
            await load.turn(instance)
            await until(lambda: queue.settled == len(queue.puts))
            await emulator.kill()
            for _ in range(20):
                await load.turn(instance)
                await asyncio.sleep(OUTAGE_SECONDS / 20)
            assert queue.settled < len(queue.puts)
            assert queue.dead_lettered == 0
            await emulator.start()
            await load.turn(instance)
        effects = await close_and_compare(emulator, client, queue)
        assert count(effects)["agent_spans/create"] == 22 * 10


async def test_a_full_buffer_drops_whole_causal_chains_and_counts_them(tmp_path: Path) -> None:
    """Given a buffer of 200 and no API, when 20 instances put 460 operations, what is kept is whole."""
    emulator = Emulator(tmp_path / "emulator.db")
    await emulator.start()
    await emulator.kill()
    queue = RecordingQueue(max_items=200)
    client = client_for(emulator.url, queue)
    await client.initialize()
    for _ in range(20):
        await run(client)
    put = 20 * _PUTS
    dropped = Counter(queue.dropped)
    assert dropped.total() == put - len(queue.puts) > 0
    await emulator.start()
    try:
        summary = await client.close(timeout=60)
        assert summary == CloseSummary(put, len(queue.puts), 0, dict(dropped), left=0)
        effects = await emulator.effects()
        assert compare(queue.puts, effects) == Comparison(0, 0, 0)
        # Nothing is half there: instances and spans are finished, and none lacks its parent.
        kept = Counter(operation.type for operation in queue.puts)
        assert kept[OperationType.REGISTER_AGENT_INSTANCE] == kept[OperationType.FINISH_AGENT_INSTANCE]
        assert kept[OperationType.CREATE_SPAN] == kept[OperationType.FINISH_SPAN]
        assert dropped["create_span"] == dropped["finish_span"] > 0
        for instance_id in {effect["instance_id"] for effect in effects}:
            found = await emulator.instance(instance_id)
            assert found["status"] == "complete"
            assert {span["status"] for span in found["spans"]} <= {"complete", "failed", "cancelled"}
    finally:
        await emulator.kill()


async def test_the_client_goes_on_when_the_api_is_away_at_the_start(tmp_path: Path) -> None:
    async with delivering(tmp_path) as (emulator, client, queue):
        await emulator.kill()
        await run(client)
        await emulator.start()
        await close_and_compare(emulator, client, queue)
