"""One schema and one registration that the API never takes, among 50 instances: who suffers, who does not."""

import asyncio
from datetime import datetime

from prefactor_core import AgentInstanceHandle, OperationType, PrefactorCoreClient
from prefactor_core.broker.dead_letters import StoredDeadLetter
from prefactor_core.identifiers import PfidFactory
from tests.fleet.scenario import (
    VERSION,
    Notes,
    client_of,
    key_of,
    keys_of,
    operation_of,
    operator,
    printed,
    stop,
    takes_effect,
)
from tests.support.fleet import Fleet, until
from tests.support.watching import FULL, dead_letters, probed_worker, set_faults

INSTANCES = 50
TURNS = 10
PACE = 0.2
DELAY_SECONDS = 1.0 if FULL else 10.0
"""How much later others may be: what was promised, or where other work slows everything, what waits show."""


async def turns(instance: AgentInstanceHandle, number: int) -> None:
    for turn in range(number):
        async with instance.span("good", payload={"turn": turn}), instance.span("good"):
            pass
        await asyncio.sleep(PACE)


async def work(
    client: PrefactorCoreClient, refused: str | None = None, bad: int = 0
) -> list[AgentInstanceHandle]:
    """Run 50 instances; one has the id ``refused``, and ``bad`` of them use the bad schema too.

    Those are not finished, and returned: what is replayed has to come before the end.
    """
    unfinished: list[AgentInstanceHandle] = []

    async def run(number: int) -> None:
        instance_id = refused if number == 7 else None
        instance = await client.create_agent_instance(agent_version=VERSION, instance_id=instance_id)
        await instance.start()
        await turns(instance, TURNS // 2)
        if number >= INSTANCES - bad:
            async with instance.span("bad"), instance.span("good"), instance.span("good"):
                pass
            unfinished.append(instance)
            return
        await turns(instance, TURNS // 2)
        await instance.finish()

    await asyncio.gather(*(run(number) for number in range(INSTANCES)))
    return unfinished


async def latencies(fleet: Fleet, notes: Notes, keys: set[str]) -> list[float]:
    """Return the seconds from put to effect of what was put under these keys, sorted."""
    return sorted(
        datetime.fromisoformat(effect["at"]).timestamp() - notes.put_at[effect["key"]]
        for effect in await fleet.emulator.effects()
        if effect["key"] in keys
    )


async def replay_all(fleet: Fleet, status: int = 0) -> dict[str, int]:
    """Replay all dead letters, as an operator does; the command ends with an exit status."""
    found = await printed(await operator(fleet, "replay", "--all", "--yes"), status)
    assert isinstance(found, dict)
    return found


async def test_only_what_is_rejected_and_what_depends_on_it_suffers(fleet: Fleet) -> None:
    notes = Notes(fleet)
    refused = PfidFactory().new()
    probed = await probed_worker(fleet)
    async with client_of(fleet, notes, "good", "bad") as client:
        await work(client)  # makes streams and queues, and warms everything up
        await until(lambda: probed.answers("/readyz", 200), 180, "it is ready")
        # How long it takes where nothing is wrong.
        earlier = set(notes.put_at)
        await work(client)
        before = keys_of(notes.operations)
        await takes_effect(fleet, len(before), 30)
        usual = await latencies(fleet, notes, before - earlier)

        await set_faults(
            fleet.emulator,
            "reject:schema=bad",
            f"reject:type=agent_instances/register,instance={refused}",
        )
        unfinished = await work(client, refused, bad=3)
        assert await client.flush(180)
        doomed = keys_of([*notes.of(refused), *notes.under("bad")])
        others = set(notes.put_at) - doomed - before
        await takes_effect(fleet, len(before | others), 30)
        all_dead = await until_letters(fleet, len(doomed))
        assert {key_of(dead) for dead in all_dead} == doomed
        check_reasons(all_dead, refused)
        late = await latencies(fleet, notes, others)
        assert len(late) == len(others)
        assert late[-1] < usual[-1] + DELAY_SECONDS

        await set_faults(fleet.emulator)
        assert (await replay_all(fleet))["replayed"] == len(doomed)
        await takes_effect(fleet, len(notes.put_at), 30)
        for instance in unfinished:
            await instance.finish()
    await takes_effect(fleet, len(notes.put_at), 30)
    await stop(probed.child)
    assert await dead_letters(fleet) == []
    found = notes.compared(fleet)
    assert (found.lost, found.doubled, found.out_of_order, found.unexpected) == (0, 0, 0, 0)


async def until_letters(fleet: Fleet, number: int) -> list[StoredDeadLetter]:
    """Wait for so many dead letters, and return all there are."""
    found: list[StoredDeadLetter] = []

    async def enough() -> bool:
        found[:] = await dead_letters(fleet)
        return len(found) >= number

    await until(enough, 180, f"{number} dead letters")
    return found


def check_reasons(all_dead: list[StoredDeadLetter], refused: str) -> None:
    """What was rejected has the reply with it, and what follows it the reason."""
    rejected = [dead for dead in all_dead if dead.reply is not None]
    assert len(rejected) == 1 + 3
    for dead in rejected:
        operation = operation_of(dead)
        registers = operation.type is OperationType.REGISTER_AGENT_INSTANCE
        assert registers is (operation.instance_id == refused)
        assert registers or operation.type is OperationType.CREATE_SPAN
        assert "this operation is never taken" in (dead.reply or "")
        assert "rejected" in dead.reason
    followers = [dead.reason for dead in all_dead if dead.reply is None]
    assert all(reason.startswith("follows a lost operation: ") for reason in followers)
