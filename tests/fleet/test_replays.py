"""Replays: every dead letter is delivered, or it is a dead letter still, or somebody purged it.

Beside killed workers, other replays, lists and a purge; and where the API refuses what is replayed.
"""

import asyncio
import contextlib
from functools import partial

from prefactor_core import AgentInstanceHandle, OperationType
from prefactor_core.broker.dead_letters import StoredDeadLetter
from tests.fleet.scenario import (
    VERSION,
    Notes,
    client_of,
    effect_keys,
    key_of,
    keys_of,
    nothing_waits,
    operator,
    printed,
    stop,
    takes_effect,
)
from tests.fleet.test_rejections import replay_all, until_letters
from tests.support.fleet import Fleet, until
from tests.support.watching import FULL, dead_letters, set_faults

REFUSED = "reject:schema=bad"
INSTANCES, SPANS = (60, 20) if FULL else (24, 6)


async def test_what_the_api_refuses_again_stays_a_dead_letter(fleet: Fleet) -> None:
    """Spans of a schema that was refused, replayed when their instance is finished: too late for them."""
    notes = Notes(fleet)
    await fleet.worker()
    await set_faults(fleet.emulator, REFUSED)
    async with client_of(fleet, notes, "good", "bad") as client:
        instance = await client.create_agent_instance(agent_version=VERSION)
        await instance.start()
        for _ in range(3):
            async with instance.span("bad"):
                pass
        await instance.finish()
    doomed = keys_of(notes.under("bad"))
    assert len(doomed) == 6
    before = {key_of(record): record for record in await until_letters(fleet, len(doomed))}
    assert set(before) == doomed
    await takes_effect(fleet, 3, 30)

    await set_faults(fleet.emulator)
    report = await replay_all(fleet, status=1)
    assert (report["replayed"], report["delivered"], report["kept"]) == (len(doomed), 0, len(doomed))

    async def refused_again() -> bool:
        now = {key_of(record): record for record in await dead_letters(fleet)}
        creates = [key for key in doomed if key.endswith(":create")]
        return set(now) == doomed and all(says_why_now(now[key], before[key]) for key in creates)

    await until(refused_again, 180, "each is a dead letter again, with the second answer")
    # The emulator takes nothing for an instance that is finished.
    assert await effect_keys(fleet) & doomed == set()


def says_why_now(after: StoredDeadLetter, before: StoredDeadLetter) -> bool:
    """Whether a dead letter has the API's second answer and not its first."""
    return after.reply != before.reply and "409" in f"{after.reason} {after.reply}"


# -- beside everything else


async def refused_spans(fleet: Fleet, notes: Notes) -> list[AgentInstanceHandle]:
    """Run instances whose last spans are refused; none of them is finished."""
    async with client_of(fleet, notes, "good", "bad") as client:

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
        assert await client.flush(180)
        return list(instances)


async def test_a_replay_beside_killed_workers_lists_a_purge_and_another_replay(fleet: Fleet) -> None:
    notes = Notes(fleet)
    worker = await fleet.worker()
    await set_faults(fleet.emulator, REFUSED)
    instances = await refused_spans(fleet, notes)
    doomed = keys_of(notes.under("bad"))
    assert len(doomed) == INSTANCES * SPANS * 2
    await until_letters(fleet, len(doomed))
    good = set(notes.put_at) - doomed
    await takes_effect(fleet, len(good), 30)
    purged = keys_of(notes.of(instances[0].id)) & doomed

    await set_faults(fleet.emulator, "latency:ms=20")
    replays = [await operator(fleet, "replay", "--all", "--yes") for _ in range(2)]
    lists = [await operator(fleet, "list") for _ in range(2)]
    purge = await operator(fleet, "purge", "--instance", instances[0].id, "--yes")
    for number in range(3):
        goal = len(good) + (number + 1) * len(doomed) // 5
        # Whatever comes first: two replays at once may take turns, and then the second waits.
        with contextlib.suppress(AssertionError):
            await until(partial(fleet.effects_are, goal), 180)
        await worker.kill()
        worker = await fleet.worker()
    for child in (*replays, purge, *lists):
        await printed(child)

    # A command that was refused because others were reading is repeated, as an operator does.
    async def done() -> bool:
        if not await nothing_waits(fleet):
            return False
        if await dead_letters(fleet):
            await printed(await operator(fleet, "replay", "--all", "--yes"))
        # A broker may count only what no worker has read yet, so what must be delivered is looked for.
        return not await dead_letters(fleet) and doomed - purged <= await effect_keys(fleet)

    await until(done, 180, "everything but what was purged is delivered")
    await stop(worker)
    await fleet.drain()
    vanished = doomed - await effect_keys(fleet)
    found = notes.compared(fleet)
    assert vanished <= purged, "only what was purged may be gone"
    assert (found.doubled, found.out_of_order, found.unexpected) == (0, 0, 0)
    assert {one.type for one in notes.operations} > {OperationType.CREATE_SPAN, OperationType.FINISH_SPAN}
