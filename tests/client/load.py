"""The load of the end-to-end tests: tasks that share instances, with spans in every shape that agents use."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefactor_core import (
    AgentInstanceHandle,
    HttpClientConfig,
    Operation,
    PrefactorCoreClient,
    PrefactorCoreConfig,
    PrefactorTelemetryFailureError,
    Queue,
    QueueConfig,
    SchemaRegistry,
)
from tests.support.emulator import Emulator, running_emulator
from tests.support.ports import free_port
from tests.support.recording import Comparison, RecordingQueue, compare

VERSION = {"name": "load", "external_identifier": "1"}


class DeliberateError(Exception):
    """Raised by the agents of the load."""


@dataclass
class Load:
    """What the agents did, to be compared with what the emulator holds."""

    parents: dict[str, str | None] = field(default_factory=dict)
    statuses: dict[str, str] = field(default_factory=dict)

    def note(self, span_id: str, parent: str | None, status: str = "complete") -> str:
        self.parents[span_id] = parent
        self.statuses[span_id] = status
        return span_id

    async def turn(self, instance: AgentInstanceHandle) -> None:
        """Record ten spans: nested, by hand, parents started late or never, cancelled and failed ones."""
        async with instance.span("t:outer", payload={"turn": 1}) as outer:
            await outer.start()
            self.note(outer.id, None)
            async with instance.span("t:inner") as inner:
                await asyncio.sleep(0)
                self.note(inner.id, outer.id)
            by_hand = await instance.create_span("t:by-hand", payload={"a": 1})
            self.note(by_hand, outer.id)
            await asyncio.sleep(0)
            await instance.finish_span(by_hand, {"b": 2})
        async with instance.span("t:outer") as never_started:
            self.note(never_started.id, None)
            async with instance.span("t:inner") as child:
                await child.start({"in": "a parent that is never started"})
                self.note(child.id, never_started.id)
        async with instance.span("t:outer") as late:
            async with instance.span("t:inner") as early_child:
                self.note(early_child.id, late.id)
            await asyncio.sleep(0)
            await late.start()
            self.note(late.id, None)
        parent = await instance.create_span("t:by-hand")
        self.note(parent, None)
        await asyncio.gather(self._cancelled(instance, parent), self._failed(instance, parent))
        await instance.finish_span(parent)

    async def _cancelled(self, instance: AgentInstanceHandle, parent: str) -> None:
        async with instance.span("t:inner", parent_span_id=parent) as span:
            self.note(span.id, parent, "cancelled")
            await span.cancel()

    async def _failed(self, instance: AgentInstanceHandle, parent: str) -> None:
        try:
            async with instance.span("t:inner") as span:
                self.note(span.id, parent, "failed")
                raise DeliberateError("on purpose")
        except DeliberateError:
            pass


def registry() -> SchemaRegistry:
    """Return the schemas of the load's spans."""
    schemas = SchemaRegistry()
    for name in ("t:outer", "t:inner", "t:by-hand"):
        schemas.register(name, {"type": "object"})
    return schemas


def client_for(
    url: str, queue: Queue[Operation] | None = None, *, termination_poll_interval: float = 30
) -> PrefactorCoreClient:
    """Return a client whose backoff suits a test."""
    return PrefactorCoreClient(
        PrefactorCoreConfig(
            http_config=HttpClientConfig(api_url=url, api_token="test", max_retry_delay=1),
            queue_config=QueueConfig(retry_delay_base=0.05),
            schema_registry=registry(),
            termination_poll_interval=termination_poll_interval,
        ),
        queue,
    )


def nowhere() -> str:
    """Return the URL of an API that is not there."""
    return f"http://127.0.0.1:{free_port()}"


async def new_instance(client: PrefactorCoreClient) -> AgentInstanceHandle:
    """Register an instance."""
    return await client.create_agent_instance(agent_version=VERSION)


@asynccontextmanager
async def delivering(
    folder: Path, *options: str
) -> AsyncIterator[tuple[Emulator, PrefactorCoreClient, RecordingQueue]]:
    """An emulator with these options, and an initialised client of it; the test closes the client."""
    async with running_emulator(folder, *options) as emulator:
        queue = RecordingQueue()
        client = client_for(emulator.url, queue)
        await client.initialize()
        try:
            yield emulator, client, queue
        finally:
            with suppress(PrefactorTelemetryFailureError):
                await client.close(timeout=0)


async def close_and_compare(
    emulator: Emulator, client: PrefactorCoreClient, queue: RecordingQueue
) -> list[dict[str, Any]]:
    """Close a client: everything that was put took effect, once and in order. Return the effects."""
    summary = await client.close(timeout=60)
    assert summary.complete, summary
    effects = await emulator.effects()
    assert compare(queue.puts, effects) == Comparison(0, 0, 0)
    return effects


async def run_load(emulator: Emulator, instances: int, tasks: int, turns: int) -> tuple[RecordingQueue, Load]:
    """Run tasks that take turns on every instance, and close the client."""
    queue = RecordingQueue()
    load = Load()
    client = client_for(emulator.url, queue)
    await client.initialize()
    handles = []
    for number in range(instances):
        handle = await client.create_agent_instance(
            agent_version=VERSION,
            external_identifier=f"load-{number}",
        )
        await handle.start()
        handles.append(handle)

    async def task(number: int) -> None:
        for turn in range(turns):
            for position in range(instances):
                await load.turn(handles[(position + number + turn) % instances])
                await asyncio.sleep(0)

    await asyncio.gather(*(task(number) for number in range(tasks)))
    for handle in handles:
        await handle.finish()
    summary = await client.close(timeout=90)
    assert summary.complete, summary
    assert summary.put == len(queue.puts)
    return queue, load


def count(effects: list[dict[str, object]]) -> Counter[str]:
    """Count effects by type."""
    return Counter(str(effect["type"]) for effect in effects)


async def check_everything(emulator: Emulator, queue: RecordingQueue, load: Load, tasks: int = 10) -> None:
    """Check a load of 20 instances: each effect once, in order, with the right parent; ten spans a turn."""
    effects = await emulator.effects()
    assert count(effects) == {
        "agent_instances/register": 20,
        "agent_instances/start": 20,
        "agent_spans/create": 200 * tasks,
        "agent_spans/finish": 200 * tasks,
        "agent_instances/finish": 20,
    }
    assert compare(queue.puts, effects) == Comparison(lost=0, doubled=0, out_of_order=0)
    assert len({effect["key"] for effect in effects}) == len(effects)
    parents: dict[str, str | None] = {}
    statuses: dict[str, str] = {}
    for instance_id in {effect["instance_id"] for effect in effects}:
        for span in (await emulator.instance(instance_id))["spans"]:
            parents[span["id"]] = span["parent_span_id"]
            statuses[span["id"]] = span["status"]
    assert parents == load.parents
    assert statuses == load.statuses
