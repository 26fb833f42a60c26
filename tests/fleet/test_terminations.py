"""Instances that the service terminates under load: no dead letters, exact counts, the others untouched."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Final

import httpx
import pytest

from prefactor_core import (
    AgentInstanceHandle,
    HttpClientConfig,
    Operation,
    OperationType,
    PrefactorCoreClient,
    PrefactorCoreConfig,
    SchemaRegistry,
)
from prefactor_emulator.verify.files import read_effects, read_terminated
from tests.fleet.scenario import VERSION, Notes, client_of, compared, stop
from tests.support.emulator import Emulator, emulator_process
from tests.support.fleet import TOKEN, running_fleet, until
from tests.support.recording import RecordingQueue
from tests.support.watching import Probed, dead_letters, probed_worker

INSTANCES: Final = 50
TURNS: Final = 10
PACE: Final = 0.1
BY_HAND: Final = 20
BY_FAULT: Final = ("--fault", "terminate:rate=0.4", "--seed", "7")
TOKENS: Final = {"account": (), "deployment": ("--account", "a=another", "--deployment", f"support={TOKEN}")}

Counts = tuple[Counter[str], Counter[str]]
"""What was superseded and what was overtaken, by type."""


async def run(client: PrefactorCoreClient, begun: list[AgentInstanceHandle], middle: asyncio.Event) -> None:
    """Be one agent, which does not listen to the service, and goes on after the middle of the load."""
    async with client.create_agent_instance(agent_version=VERSION) as instance:
        await instance.start()
        begun.append(instance)
        await turn(instance, middle)
        for _ in range(TURNS):
            async with instance.span("step"):  # by itself: nothing else needs it
                pass
            await turn(instance)


async def turn(instance: AgentInstanceHandle, until_then: asyncio.Event | None = None) -> None:
    async with instance.span("step") as outer:
        await outer.start()
        async with instance.span("step") as inner:
            await inner.start()
            await (asyncio.sleep(PACE) if until_then is None else until_then.wait())


async def work(client: PrefactorCoreClient, terminate: Callable[[str], Awaitable[None]] | None) -> None:
    """Be them all; in the middle, while spans are open, some are terminated by hand."""
    begun: list[AgentInstanceHandle] = []
    middle = asyncio.Event()
    running = [asyncio.create_task(run(client, begun, middle)) for _ in range(INSTANCES)]
    await until(lambda: len(begun) == INSTANCES)
    if terminate is not None:
        await asyncio.gather(*(terminate(instance.id) for instance in begun[:BY_HAND]))
    middle.set()
    await asyncio.gather(*running)


async def terminate_at(emulator: Emulator, instance_id: str) -> None:
    """Terminate an instance as the service does, once it is there."""
    async with httpx.AsyncClient(base_url=emulator.url, timeout=60, trust_env=False) as http:

        async def done() -> bool:
            reply = await http.post(f"/emulator/instances/{instance_id}/terminate", json={})
            return reply.status_code == 200

        await until(done)


def expected(put: Iterable[Operation], emulator: Emulator) -> Counts:
    """Return the counts as the emulator's database has them."""
    database = str(emulator.database)
    done = {effect.key for effect in read_effects(database)}
    superseded, overtaken = Counter[str](), Counter[str]()
    for one in put:
        if one.idempotency_key not in done:
            closed = f"{one.span_id}:create" in done and one.type is OperationType.FINISH_SPAN
            settled = closed or one.type is OperationType.FINISH_AGENT_INSTANCE
            (overtaken if settled else superseded)[one.type.value] += 1
    return superseded, overtaken


def check(put: list[Operation], emulator: Emulator, counts: Counts, *, by_hand: bool) -> None:
    """Nothing is lost, doubled or out of order; what was refused is of terminated instances, and counted."""
    found = compared(put, emulator)
    assert found.clean, found
    terminated = len(read_terminated(str(emulator.database)))
    assert terminated == BY_HAND if by_hand else 0 < terminated < INSTANCES
    assert counts == expected(put, emulator)
    assert found.refused == counts[0].total() + counts[1].total()
    assert counts[1]["finish_agent_instance"] == terminated
    # Where a terminated instance takes no new spans, an agent that goes on has many superseded.
    assert (counts[0]["create_span"] > BY_HAND) is by_hand


def options(tokens: str, *, by_hand: bool) -> tuple[str, ...]:
    return (*TOKENS[tokens], *(("--strict-termination",) if by_hand else BY_FAULT))


each_way = pytest.mark.parametrize("by_hand", [True, False], ids=["by hand", "by fault"])
each_token = pytest.mark.parametrize("tokens", TOKENS)


@each_way
@each_token
async def test_in_process(tmp_path: Path, tokens: str, *, by_hand: bool) -> None:
    async with emulator_process(tmp_path, *options(tokens, by_hand=by_hand)) as emulator:
        registry = SchemaRegistry()
        registry.register("step", {"type": "object"})
        http = HttpClientConfig(api_url=emulator.url, api_token=TOKEN)
        queue = RecordingQueue()
        config = PrefactorCoreConfig(http_config=http, schema_registry=registry, termination_poll_interval=0)
        client = PrefactorCoreClient(config, queue)
        async with client:
            await work(client, partial(terminate_at, emulator) if by_hand else None)
            assert await client.flush(180)
            superseded, overtaken = expected(queue.puts, emulator)
            stats = client.stats()
            assert (stats.dead_lettered, stats.dropped) == (0, {})
            assert stats.delivered + superseded.total() == stats.put
            assert (Counter(stats.superseded), stats.overtaken) == (superseded, overtaken.total())
        check(queue.puts, emulator, (superseded, overtaken), by_hand=by_hand)


async def counted(worker: Probed) -> Counts:
    """Return what a worker's metrics say."""
    kinds = [kind.value for kind in OperationType]
    superseded, overtaken = Counter[str](), Counter[str]()
    for kind in kinds:
        superseded[kind] = int(await worker.metric("prefactor_operations_superseded_total", type=kind))
        overtaken[kind] = int(await worker.metric("prefactor_operations_overtaken_total", type=kind))
    return +superseded, +overtaken


@each_way
@each_token
async def test_by_a_broker(transport_url: str, tmp_path: Path, tokens: str, *, by_hand: bool) -> None:
    async with running_fleet(transport_url, tmp_path, *options(tokens, by_hand=by_hand)) as fleet:
        worker = await probed_worker(fleet)
        await until(lambda: worker.answers("/readyz", 200))
        notes = Notes(fleet)
        async with client_of(fleet, notes, "step") as client:
            await work(client, partial(terminate_at, fleet.emulator) if by_hand else None)

        async def all_counted() -> bool:
            counts = await counted(worker)
            ended = await fleet.effects() + counts[0].total() + counts[1].total()
            return ended >= len(notes.operations) or bool(await dead_letters(fleet))

        await until(all_counted, 180)
        assert await dead_letters(fleet) == []
        check(notes.operations, fleet.emulator, await counted(worker), by_hand=by_hand)
        await stop(worker.child)
        ended = read_terminated(str(fleet.emulator.database))
        assert worker.child.log.count("what it refuses is superseded") == len(ended), "a line an instance"
