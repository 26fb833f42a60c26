"""An operation that kills its worker each time it is handled is set aside; its neighbours are delivered."""

import asyncio
import signal
import sys
from pathlib import Path

from prefactor_emulator import verify
from prefactor_emulator.model import OperationType
from prefactor_emulator.verify_files import read_effects, read_puts
from tests.support.fleet import TOKEN, Child, Fleet, running_fleet
from tests.support.poisoned_worker import DEATH
from tests.support.watching import dead_letters

CRASHES = 3
"""Until a partition is handled one operation at a time."""
ATTEMPTS = 3
"""Of the operation alone, until it is given up."""


def short(url: str) -> str:
    """Return the transport URL with an owner that is missed after a second."""
    return url.replace("lease=3", "lease=1").replace("heartbeat=2", "heartbeat=1")


async def poisoned_worker(fleet: Fleet, key: str) -> Child:
    return await fleet._start(
        *("-m", "tests.support.poisoned_worker", key),
        *("run", "--transport", fleet.url, "--api-url", fleet.emulator.url, "--metrics-port", "0"),
        environment={"PREFACTOR_API_TOKEN": TOKEN},
    )


async def set_aside(fleet: Fleet) -> int:
    """Return how many operations were dead-lettered; the broker is asked only once a worker says so."""
    if not any("dead-lettered" in child.log for child in fleet._children):
        return 0
    return len(await dead_letters(fleet))


async def supervised(fleet: Fleet, key: str, operations: int) -> tuple[Child, list[int]]:
    """Start a worker again each time it dies, until everything is done or set aside.

    Returns the last one, and how many effects there were at each death.
    """
    deaths: list[int] = []
    worker = await poisoned_worker(fleet, key)
    while await fleet.effects() + await set_aside(fleet) < operations:
        if worker.process.returncode is not None:
            assert worker.process.returncode == DEATH, worker.log
            deaths.append(await fleet.effects())
            worker = await poisoned_worker(fleet, key)
        await asyncio.sleep(0.1)
    return worker, deaths


async def test_a_killer_is_dead_lettered_and_its_neighbours_are_delivered(
    transport_url: str, tmp_path: Path
) -> None:
    async with running_fleet(short(transport_url), tmp_path) as fleet, asyncio.timeout(100):
        agent = await fleet.agent("--instances", "24", "--tasks", "24", "--spans", "24")
        operations = 24 * (3 + 2 * 24)
        await fleet.report(agent)
        # The end of a span: nothing depends on it.
        puts = list(read_puts(str(fleet._puts[0])))
        killer = next(put for put in puts[100:] if put.type is OperationType.FINISH_SPAN)
        worker, deaths = await supervised(fleet, killer.key, operations)
        worker.signal(signal.SIGTERM)
        assert await worker.ended(20) == 0, worker.log
        letters = await dead_letters(fleet)
        found = verify.compare(
            list(read_puts(str(fleet._puts[0]))), read_effects(str(fleet.emulator.database))
        )
    # Figures, not timed tests: shown with -rP.
    sys.stdout.write(f"killed {len(deaths)} workers, at {deaths} of {operations} effects; {letters}\n")
    (letter,) = letters
    envelope = letter.read()
    assert envelope is not None
    assert envelope.operation.idempotency_key == killer.key
    assert "its workers crashed each time they handled it" in letter.reason
    # A crash with progress since the last one does not count.
    assert CRASHES + ATTEMPTS <= len(deaths) <= CRASHES + ATTEMPTS + 3
    assert (found.lost, found.doubled, found.out_of_order, found.unexpected) == (1, 0, 0, 0)
