"""One schema and one registration that the API never takes, among 50 instances: who suffers, who does not."""

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from io import StringIO

from prefactor_core import (
    AgentInstanceHandle,
    Operation,
    OperationType,
    PrefactorCoreClient,
    PrefactorCoreConfig,
    SchemaRegistry,
)
from prefactor_core.broker.buffer import BufferBounds
from prefactor_core.broker.dead_letter import StoredDeadLetter
from prefactor_core.identifiers import PfidFactory
from prefactor_emulator import verify
from prefactor_emulator.verify_files import read_effects
from tests.support.agent_program import RecordingBrokerQueue
from tests.support.fleet import Fleet, until
from tests.support.watching import FULL, dead_letters, probed_worker, set_faults

INSTANCES = 50
TURNS = 10
PACE = 0.2
DELAY_SECONDS = 1.0 if FULL else 10.0
"""How much later others may be: what was promised, or where other work slows everything, what waits show."""
VERSION = {"name": "rejections", "external_identifier": "1"}


class Notes(RecordingBrokerQueue):
    """A queue that remembers every put and its time."""

    def __init__(self, fleet: Fleet) -> None:
        bounds = BufferBounds(100_000, 64 * 1024 * 1024)
        super().__init__(fleet.queue(), bounds, StringIO())
        self.put_at: dict[str, float] = {}
        self.operations: list[Operation] = []

    async def put(self, item: Operation) -> None:
        self.put_at[item.idempotency_key or ""] = time.time()
        self.operations.append(item)
        await super().put(item)

    def keys(self, *instances: str) -> set[str]:
        """Return the keys of all operations of some instances."""
        return {one.idempotency_key or "" for one in self.operations if one.instance_id in instances}

    def keys_under(self, schema: str) -> set[str]:
        """Return the keys of all spans of a schema, and of all below them."""
        spans: set[object] = set()
        keys: set[str] = set()
        for one in self.operations:
            if one.type is OperationType.CREATE_SPAN and (
                one.payload["schema_name"] == schema or one.payload.get("parent_span_id") in spans
            ):
                spans.add(one.span_id)
            if one.span_id in spans:
                keys.add(one.idempotency_key or "")
        return keys


@asynccontextmanager
async def agent(fleet: Fleet, notes: Notes) -> AsyncIterator[PrefactorCoreClient]:
    schemas = SchemaRegistry()
    for name in ("good", "bad"):
        schemas.register(name, {"type": "object"})
    async with PrefactorCoreClient(
        PrefactorCoreConfig(transport_url=fleet.url, schema_registry=schemas), notes
    ) as client:
        yield client


async def turns(instance: AgentInstanceHandle, number: int) -> None:
    for turn in range(number):
        async with instance.span("good", payload={"turn": turn}), instance.span("good"):
            pass
        await asyncio.sleep(PACE)


async def work(
    client: PrefactorCoreClient, refused: str | None = None, suspects: int = 0
) -> list[AgentInstanceHandle]:
    """Run 50 instances; one has the id ``refused``, and ``suspects`` of them use the bad schema too.

    Those are not finished, and returned: what is replayed has to come before the end.
    """
    unfinished: list[AgentInstanceHandle] = []

    async def run(number: int) -> None:
        instance_id = refused if number == 7 else None
        instance = await client.create_agent_instance(agent_version=VERSION, instance_id=instance_id)
        await instance.start()
        await turns(instance, TURNS // 2)
        if number >= INSTANCES - suspects:
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


def key_of(record: StoredDeadLetter) -> str:
    envelope = record.read()
    assert envelope is not None
    return envelope.operation.idempotency_key or ""


async def replay_all(fleet: Fleet, status: int = 0) -> dict[str, int]:
    """Replay all dead letters, as an operator does; the command ends with an exit status."""
    child = await fleet._start(
        *("-m", "prefactor_worker", "dead-letters", "replay"),
        *("--all", "--yes", "--json", "--transport", fleet.url),
    )
    assert child.process.stdout is not None
    async with asyncio.timeout(60):
        printed = await child.process.stdout.read()
    assert await child.ended(10) == status, child.log
    found: dict[str, int] = json.loads(printed)
    return found


async def test_only_what_is_rejected_and_what_depends_on_it_suffers(fleet: Fleet) -> None:
    notes = Notes(fleet)
    refused = PfidFactory().new()
    probed = await probed_worker(fleet)
    worker = probed.child
    async with agent(fleet, notes) as client:
        await work(client)  # makes streams and queues, and warms everything up
        await until(lambda: probed.answers("/readyz", 200), 30, "it is ready")
        # How long it takes where nothing is wrong.
        earlier = set(notes.put_at)
        await work(client)
        before = {operation.idempotency_key or "" for operation in notes.operations}
        await until(lambda: fleet.effects_are(len(before)), 30, "all of the first round")
        usual = await latencies(fleet, notes, before - earlier)

        await set_faults(
            fleet.emulator,
            "reject:schema=bad",
            f"reject:type=agent_instances/register,instance={refused}",
        )
        unfinished = await work(client, refused, suspects=3)
        assert await client.flush(20)
        doomed = notes.keys(refused) | notes.keys_under("bad")
        others = set(notes.put_at) - doomed - before
        await until(lambda: fleet.effects_are(len(before | others)), 30, "all others of the second round")
        letters = await until_letters(fleet, len(doomed))
        assert {key_of(letter) for letter in letters} == doomed
        check_reasons(letters, refused)
        late = await latencies(fleet, notes, others)
        # Figures, not timed tests: shown with -rP.
        sys.stdout.write(f"{len(doomed)} dead letters; seconds from put to effect of all others: ")
        sys.stdout.write(f"p50 {late[len(late) // 2]:.3f}, most {late[-1]:.3f}; ")
        sys.stdout.write(f"without rejections p50 {usual[len(usual) // 2]:.3f}, most {usual[-1]:.3f}\n")
        assert len(late) == len(others)
        assert late[-1] < usual[-1] + DELAY_SECONDS

        await set_faults(fleet.emulator)
        assert (await replay_all(fleet))["replayed"] == len(doomed)
        await until(lambda: fleet.effects_are(len(notes.put_at)), 30, "what was replayed")
        for instance in unfinished:
            await instance.finish()
    await until(lambda: fleet.effects_are(len(notes.put_at)), 30, "the ends")
    worker.signal(signal.SIGTERM)
    assert await worker.ended(30) == 0, worker.log
    assert await dead_letters(fleet) == []
    check_figures(fleet, notes)


async def until_letters(fleet: Fleet, number: int) -> list[StoredDeadLetter]:
    """Wait for so many dead letters, and return all there are."""
    found: list[StoredDeadLetter] = []

    async def enough() -> bool:
        found[:] = await dead_letters(fleet)
        return len(found) >= number

    await until(enough, 30, f"{number} dead letters")
    return found


def check_reasons(letters: list[StoredDeadLetter], refused: str) -> None:
    """What was rejected has the reply with it, and what follows it the reason."""
    rejected = [letter for letter in letters if letter.reply is not None]
    assert len(rejected) == 1 + 3
    for letter in rejected:
        envelope = letter.read()
        assert envelope is not None
        expected = (
            OperationType.REGISTER_AGENT_INSTANCE
            if envelope.operation.instance_id == refused
            else OperationType.CREATE_SPAN
        )
        assert envelope.operation.type is expected
        assert "this operation is never taken" in (letter.reply or "")
        assert "rejected" in letter.reason
    assert all(
        letter.reason.startswith("follows a lost operation: ") for letter in letters if letter.reply is None
    )


def check_figures(fleet: Fleet, notes: Notes) -> None:
    types = verify.PUT_TYPES
    puts = [
        verify.Put(one.instance_id or "", types[one.type.value], one.idempotency_key or "")
        for one in notes.operations
    ]
    found = verify.compare(puts, read_effects(str(fleet.emulator.database)))
    assert (found.lost, found.doubled, found.out_of_order, found.unexpected) == (0, 0, 0, 0)
