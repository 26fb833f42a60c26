"""Every fault of the API, alone and mixed, under load: the same effects, each once and in order."""

from pathlib import Path

import pytest

from prefactor_core import OperationType, PrefactorTelemetryFailureError
from tests.client.load import VERSION, Load, check_everything, delivering, new_instance, run_load
from tests.support.emulator import running_emulator
from tests.support.recording import Comparison, compare

ALONE = [
    "latency:ms=5,jitter_ms=30",
    "error:rate=0.1,status=500",
    "error:rate=0.1,status=503",
    "throttle:rate=0.05,retry_after=1",
    "lost-reply:rate=0.1",
    "lost-reply:rate=0.1,part=0.5",
    "slow-body:rate=0.2,bytes=200,ms=2",
    "away:rate=0.1",
    "no-bulk:status=404",
    "no-bulk:status=501,rate=0.3",
    "html-errors:rate=0.1,status=502",
    "html-errors:rate=0.1,status=403",
    "html-errors:rate=0.1,status=404",
    "html-errors:count=2,status=413",
    "forget-keys:rate=0.3",
]
MIXED = [
    ("lost-reply:rate=0.1", "error:rate=0.1", "throttle:rate=0.05,retry_after=1"),
    ("lost-reply:rate=0.2", "forget-keys:rate=0.5"),
    ("no-bulk:rate=0.2,status=404", "lost-reply:rate=0.02", "html-errors:rate=0.05,status=502"),
    ("away:rate=0.1", "latency:ms=10,jitter_ms=20", "lost-reply:rate=0.1,part=0.5", "forget-keys:rate=0.1"),
    ("html-errors:rate=0.1,status=403", "slow-body:rate=0.2,bytes=500,ms=1", "error:rate=0.1"),
]


def options(*faults: str, seed: int = 1) -> list[str]:
    return [word for fault in faults for word in ("--fault", fault)] + ["--seed", str(seed)]


@pytest.mark.parametrize("faults", [*((fault,) for fault in ALONE), *MIXED], ids=" + ".join)
async def test_no_fault_changes_an_effect(tmp_path: Path, faults: tuple[str, ...]) -> None:
    tasks = 3 if any(fault.startswith("no-bulk") for fault in faults) else 10  # a request for each operation
    async with running_emulator(tmp_path, *options(*faults)) as emulator:
        queue, load = await run_load(emulator, instances=20, tasks=tasks, turns=1)
        await check_everything(emulator, queue, load, tasks)
        assert queue.dead_lettered == 0


async def test_without_deduplication_the_same_load_is_found_doubled(tmp_path: Path) -> None:
    """The control run: the faults bite, and the checker sees it."""
    faults = options("lost-reply:rate=0.2")
    async with running_emulator(tmp_path, "--no-dedup", *faults) as emulator:
        queue, _ = await run_load(emulator, instances=20, tasks=10, turns=1)
        found = compare(queue.puts, await emulator.effects())
        assert found.doubled > 0
        assert found.lost == 0


async def test_what_is_rejected_is_set_aside_and_the_rest_arrives(tmp_path: Path) -> None:
    async with delivering(tmp_path, *options("reject:schema=t:by-hand,status=422")) as (
        emulator,
        client,
        queue,
    ):
        load = Load()
        for _ in range(4):
            async with client.create_agent_instance(agent_version=VERSION) as instance:
                await load.turn(instance)
        summary = await client.close(timeout=60)
        dead = {dead.item.idempotency_key: dead for dead in queue.dead_letters()}
        alive = [operation for operation in queue.puts if operation.idempotency_key not in dead]
        assert compare(alive, await emulator.effects()) == Comparison(0, 0, 0)
        # Two of the ten spans of a turn are of that schema; one of them has two children.
        assert summary.dead_lettered == len(dead) == 4 * 2 * 4
        rejected = [dead for dead in dead.values() if dead.reason == "rejected: HTTP 422 rejected"]
        assert len(rejected) == 4 * 2
        assert all(dead.item.type is OperationType.CREATE_SPAN for dead in rejected)
        assert all(dead.reply is not None and "HTTP 422" in dead.reply for dead in rejected)


async def test_a_rejected_registration_takes_its_instance_along_and_no_other(tmp_path: Path) -> None:
    faults = options("reject:type=agent_instances/register,count=1,status=422")
    async with delivering(tmp_path, *faults) as (emulator, client, queue):
        for _ in range(10):
            async with client.create_agent_instance(agent_version=VERSION) as instance:
                await Load().turn(instance)
        await client.close(timeout=60)
        dead = {dead.item.idempotency_key for dead in queue.dead_letters()}
        assert len({dead.item.instance_id for dead in queue.dead_letters()}) == 1
        assert len(dead) == 3 + 2 * 10
        alive = [operation for operation in queue.puts if operation.idempotency_key not in dead]
        assert compare(alive, await emulator.effects()) == Comparison(0, 0, 0)


async def test_terminated_instances_hear_of_it_and_the_others_go_on(tmp_path: Path) -> None:
    async with delivering(tmp_path, *options("terminate:rate=0.5,reason=enough")) as (
        emulator,
        client,
        queue,
    ):
        handles = [await new_instance(client) for _ in range(20)]
        for handle in handles:
            await Load().turn(handle)
        assert await client.flush(30)
        terminated = [handle for handle in handles if handle.terminated]
        assert 0 < len(terminated) < 20
        for handle in handles:
            found = await emulator.instance(handle.id)
            assert (found["status"] == "terminated") == handle.terminated
            await handle.finish()
        summary = await client.close(timeout=30)
        assert summary.complete, summary
        finishes = {handle.id for handle in terminated}
        took_effect = [
            operation
            for operation in queue.puts
            if operation.type is not OperationType.FINISH_AGENT_INSTANCE
            or operation.instance_id not in finishes
        ]
        assert compare(took_effect, await emulator.effects()) == Comparison(0, 0, 0)


async def test_a_token_that_nobody_takes_ends_delivery_and_drops_are_counted(tmp_path: Path) -> None:
    async with delivering(tmp_path, *options("bad-token:status=401")) as (emulator, client, queue):
        await new_instance(client)
        with pytest.raises(PrefactorTelemetryFailureError) as caught:
            await client.close()
        assert caught.value.dropped_operations == len(queue.puts) == 1
        assert await emulator.effects() == []
