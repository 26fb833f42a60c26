"""An operation that kills its worker each time is set aside with what depends on it; others are delivered."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from prefactor_core import Operation
from prefactor_core.broker.dead_letters import Selection, StoredDeadLetter
from prefactor_core.identifiers import PfidFactory
from prefactor_core.operations import OperationType as Kind
from tests.fleet.scenario import VERSION, Notes, client_of, key_of, keys_of, stop, takes_effect
from tests.support.fleet import TOKEN, Figures, Fleet, running_fleet, until
from tests.support.poisoned_worker import DEATH
from tests.support.ports import free_port
from tests.support.watching import Probed, dead_letters, fault_hits, set_faults
from tests.worker.commands import open_queue

CRASHES = 3
"""Until a partition is handled one operation at a time."""
ATTEMPTS = 3
"""Of the operation alone, until it is dead-lettered."""
KILLED = "its workers crashed each time they handled it"
FOLLOWS = f"follows a lost operation: {KILLED}"
NEIGHBOURS = 8
SPANS = 6


def short(url: str) -> str:
    """Return the transport URL with an owner that is missed after a second."""
    return url.replace("lease=3", "lease=1").replace("heartbeat=2", "heartbeat=1")


async def poisoned_worker(fleet: Fleet, poison: Path) -> Probed:
    port = free_port()
    child = await fleet._start(
        *("-m", "tests.support.poisoned_worker", str(poison)),
        *("run", "--transport", fleet.url, "--api-url", fleet.emulator.url),
        *("--metrics-host", "127.0.0.1", "--metrics-port", str(port)),
        environment={"PREFACTOR_API_TOKEN": TOKEN},
    )
    return Probed(child, port)


async def set_aside(fleet: Fleet) -> int:
    """Return how many operations were dead-lettered; the broker is asked only once a worker says so."""
    if not any("dead-lettered" in child.log for child in fleet._children):
        return 0
    return len(await dead_letters(fleet))


async def supervised(fleet: Fleet, key: str, operations: int) -> tuple[Probed, list[int]]:
    """Start a worker again each time it dies, until everything is done or set aside.

    Returns the last one, and how many effects there were at each death.
    """
    poison = fleet.folder / "poison"
    poison.write_text(key)
    deaths: list[int] = []
    worker = await poisoned_worker(fleet, poison)
    while await fleet.effects() + await set_aside(fleet) < operations:
        if worker.child.process.returncode is not None:
            assert worker.child.process.returncode == DEATH, worker.child.log
            deaths.append(await fleet.effects())
            worker = await poisoned_worker(fleet, poison)
        await asyncio.sleep(0.1)
    return worker, deaths


async def check_killed(fleet: Fleet, key: str, operations: int) -> None:
    """The poison operation, and it alone, is a dead letter; everything else took effect."""
    (dead,) = await dead_letters(fleet)
    assert reasons([dead]) == {key: (KILLED, ATTEMPTS, None)}
    assert fleet.figures() == Figures(operations, lost=1, doubled=0, out_of_order=0, unexpected=0)


def reasons(records: list[StoredDeadLetter]) -> dict[str, tuple[str, int, str | None]]:
    """Return reason, attempts and reply of each dead letter, by key."""
    return {key_of(record): (record.reason, record.attempts, record.reply) for record in records}


async def work(fleet: Fleet, notes: Notes, lost: str) -> None:
    """Run instances whose spans nobody ends, and one with spans below each other, which is not finished."""
    async with client_of(fleet, notes, "leaf", "top", "below") as client:

        async def run(instance_id: str | None) -> None:
            instance = await client.create_agent_instance(agent_version=VERSION, instance_id=instance_id)
            await instance.start()
            for number in range(SPANS):
                await instance.create_span("leaf", payload={"number": number})
                if instance_id is not None and number == SPANS // 2:
                    async with instance.span("top"), instance.span("below"), instance.span("below"):
                        pass
            if instance_id is None:
                await instance.finish()

        await asyncio.gather(run(lost), *(run(None) for _ in range(NEIGHBOURS)))
        assert await client.flush(180)


Doomed = Callable[[Notes, str], list[Operation]]
DOOMED: dict[str, Doomed] = {
    "create of a span": lambda notes, _: notes.under("top"),
    "registration": lambda notes, lost: notes.of(lost),
}
"""What is lost, the poison first."""


@pytest.mark.parametrize("what", DOOMED)
async def test_what_depends_on_a_poison_is_set_aside_unsent_and_can_be_replayed(
    transport_url: str, tmp_path: Path, what: str
) -> None:
    async with running_fleet(short(transport_url), tmp_path) as fleet, asyncio.timeout(300):
        lost = PfidFactory().new()
        notes = Notes(fleet)
        await work(fleet, notes, lost)
        poison, *followers = DOOMED[what](notes, lost)
        doomed = keys_of([poison, *followers])
        assert len(followers) == (5 if what == "create of a span" else 1 + SPANS + 6)
        # They do nothing but count requests that hold what must not be sent; only the lost have finishes.
        counters = ["latency:ms=1,schema=below", "latency:ms=1,type=agent_spans/finish"]
        if what == "registration":
            counters.append(f"latency:ms=1,instance={lost}")
        await set_faults(fleet.emulator, *counters)

        worker, deaths = await supervised(fleet, poison.idempotency_key or "", len(notes.operations))
        all_dead = reasons(await dead_letters(fleet))
        assert all_dead.pop(poison.idempotency_key or "") == (KILLED, ATTEMPTS, None)
        assert all_dead == dict.fromkeys(keys_of(followers), (FOLLOWS, 0, None))
        # A crash with progress since the last one does not count.
        assert CRASHES + ATTEMPTS <= len(deaths) <= CRASHES + ATTEMPTS + 3, deaths
        assert await fault_hits(fleet.emulator) == [0] * len(counters)
        found = notes.compared(fleet)
        assert (found.lost, found.doubled, found.out_of_order) == (len(doomed), 0, 0)
        name = "prefactor_operations_dead_lettered_total"
        await until(
            lambda: worker.metric_is(name, lambda dead: dead == len(doomed)), 180, "each counted once"
        )
        for kind in Kind:
            count = sum(one.type is kind for one in [poison, *followers])
            assert await worker.metric(name, type=kind.value) == count

        # Mended, they are replayed, and the worker that has dead_lettered them carries them out.
        (fleet.folder / "poison").write_text("")
        async with open_queue(fleet.url) as queue:
            replay = await queue.dead_letters.replay(Selection())
        assert (replay.replayed, replay.unreadable) == (len(doomed), 0)
        await takes_effect(fleet, len(notes.operations))
        assert all(hits > 0 for hits in await fault_hits(fleet.emulator))
        await stop(worker.child)
        assert await dead_letters(fleet) == []
        found = notes.compared(fleet)
        assert (found.lost, found.doubled, found.unexpected) == (0, 0, 0)
