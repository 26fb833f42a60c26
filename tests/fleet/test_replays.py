"""Replays: every dead letter is delivered, or it is a dead letter still, or somebody purged it.

Beside killed workers, other replays, lists and a purge; and where the API refuses what is replayed.
"""

import asyncio
import contextlib
import json
import signal
import sys
from functools import partial

from prefactor_core import AgentInstanceHandle, OperationType
from prefactor_core.broker.dead_letter import StoredDeadLetter
from prefactor_emulator import verify
from prefactor_emulator.verify_files import read_effects
from tests.fleet.test_rejections import VERSION, Notes, agent, key_of, replay_all, until_letters
from tests.support.fleet import Child, Fleet, until
from tests.support.watching import FULL, dead_letters, set_faults

REFUSED = "reject:schema=bad"
INSTANCES, SPANS = (60, 20) if FULL else (24, 6)


async def nothing_waits(fleet: Fleet) -> bool:
    """Whether the broker holds no operation that is to be delivered."""
    queue = fleet.queue()
    try:
        return await queue.depth() == 0
    finally:
        await queue.disconnect()


async def effect_keys(fleet: Fleet) -> set[str]:
    """Return the keys of all that has taken effect."""
    return {effect["key"] for effect in await fleet.emulator.effects()}


async def test_what_the_api_refuses_again_stays_a_dead_letter(fleet: Fleet) -> None:
    """Spans of a schema that was refused, replayed when their instance is finished: too late for them."""
    notes = Notes(fleet)
    await fleet.worker()
    await set_faults(fleet.emulator, REFUSED)
    async with agent(fleet, notes) as client:
        instance = await client.create_agent_instance(agent_version=VERSION)
        await instance.start()
        for _ in range(3):
            async with instance.span("bad"):
                pass
        await instance.finish()
    doomed = notes.keys_under("bad")
    assert len(doomed) == 6
    before = {key_of(record): record for record in await until_letters(fleet, len(doomed))}
    assert set(before) == doomed
    await until(lambda: fleet.effects_are(3), 30, "the instance is finished")

    await set_faults(fleet.emulator)
    report = await replay_all(fleet, status=1)
    sys.stdout.write(f"{report}\n")
    assert (report["replayed"], report["delivered"], report["kept"]) == (len(doomed), 0, len(doomed))

    async def accounted_for() -> bool:
        now = {key_of(record): record for record in await dead_letters(fleet)}
        again = all(says_why_now(now[key], before[key]) for key in now if key.endswith(":create"))
        return again and doomed <= set(now) | await effect_keys(fleet)

    # What is missing is shown below.
    with contextlib.suppress(AssertionError):
        await until(accounted_for, 15)
    letters = {key_of(record): record for record in await dead_letters(fleet)}
    delivered = await effect_keys(fleet) & doomed
    vanished = doomed - delivered - set(letters)
    # Figures, not timed tests: shown with -rP.
    sys.stdout.write(f"{len(doomed)} replayed: {len(delivered)} delivered, {len(letters)} dead letters, ")
    sys.stdout.write(f"{len(vanished)} vanished\n")
    assert vanished == set()
    assert delivered == set()  # the emulator takes nothing for an instance that is finished
    for key in doomed:
        if key.endswith(":create"):
            assert says_why_now(letters[key], before[key]), letters[key]


def says_why_now(after: StoredDeadLetter, before: StoredDeadLetter) -> bool:
    """Whether a dead letter has the API's second answer and not its first."""
    return after.reply != before.reply and "409" in f"{after.reason} {after.reply}"


# -- beside everything else


async def refused_spans(fleet: Fleet, notes: Notes) -> list[AgentInstanceHandle]:
    """Run instances whose last spans are refused; none of them is finished."""
    async with agent(fleet, notes) as client:

        async def run() -> AgentInstanceHandle:
            instance = await client.create_agent_instance(agent_version=VERSION)
            await instance.start()
            async with instance.span("good"):
                pass
            for _ in range(SPANS):
                async with instance.span("bad"):
                    pass
            return instance

        instances = await asyncio.gather(*(run() for _ in range(INSTANCES)))
        assert await client.flush(30)
        return list(instances)


async def operator(fleet: Fleet, *words: str) -> Child:
    """Start a command about dead letters."""
    return await fleet._start(
        "-m", "prefactor_worker", "dead-letters", *words, "--json", "--transport", fleet.url
    )


async def printed(child: Child) -> object:
    """Wait for a command's end and return what it printed; nothing where it was refused."""
    assert child.process.stdout is not None
    async with asyncio.timeout(90):
        output = await child.process.stdout.read()
    await child.ended(10)
    with contextlib.suppress(ValueError):
        return json.loads(output)
    return None


def compared(fleet: Fleet, notes: Notes) -> verify.Comparison:
    puts = [
        verify.Put(one.instance_id or "", verify.PUT_TYPES[one.type.value], one.idempotency_key or "")
        for one in notes.operations
    ]
    return verify.compare(puts, read_effects(str(fleet.emulator.database)))


async def test_a_replay_beside_killed_workers_lists_a_purge_and_another_replay(fleet: Fleet) -> None:
    notes = Notes(fleet)
    worker = await fleet.worker()
    await set_faults(fleet.emulator, REFUSED)
    instances = await refused_spans(fleet, notes)
    doomed = notes.keys_under("bad")
    assert len(doomed) == INSTANCES * SPANS * 2
    await until_letters(fleet, len(doomed))
    good = set(notes.put_at) - doomed
    await until(lambda: fleet.effects_are(len(good)), 30, "all others")
    purged = notes.keys(instances[0].id) & doomed

    await set_faults(fleet.emulator, "latency:ms=20")
    replays = [await operator(fleet, "replay", "--all", "--yes") for _ in range(2)]
    lists = [await operator(fleet, "list") for _ in range(2)]
    purge = await operator(fleet, "purge", "--instance", instances[0].id, "--yes")
    for number in range(3):
        goal = len(good) + (number + 1) * len(doomed) // 5
        # Whatever comes first: two replays at once may take turns, and then the second waits.
        with contextlib.suppress(AssertionError):
            await until(partial(fleet.effects_are, goal), 10)
        await worker.kill()
        worker = await fleet.worker()
    reports = [await printed(child) for child in (*replays, purge)]
    listed = [await printed(child) is not None for child in lists]

    # Whoever was refused because others were reading tries again, as an operator does.
    async def done() -> bool:
        if not await nothing_waits(fleet):
            return False
        if await dead_letters(fleet):
            await printed(await operator(fleet, "replay", "--all", "--yes"))
        # A broker may count only what no worker has read yet, so what must be delivered is looked for.
        return not await dead_letters(fleet) and doomed - purged <= await effect_keys(fleet)

    await until(done, 60, "everything but what was purged is delivered")
    worker.signal(signal.SIGTERM)
    assert await worker.ended(30) == 0, worker.log
    await fleet.drain()
    vanished = doomed - await effect_keys(fleet)
    found = compared(fleet, notes)
    # Figures, not timed tests: shown with -rP.
    sys.stdout.write(
        f"{len(doomed)} dead letters; {len(vanished)} gone, {len(purged)} of the purged instance; "
    )
    sys.stdout.write(
        f"{found.doubled} doubled, {found.out_of_order} out of order; commands said {reports}, {listed}\n"
    )
    assert vanished <= purged, "only what was purged may be gone"
    assert (found.doubled, found.out_of_order, found.unexpected) == (0, 0, 0)
    assert {one.type for one in notes.operations} > {OperationType.CREATE_SPAN, OperationType.FINISH_SPAN}
