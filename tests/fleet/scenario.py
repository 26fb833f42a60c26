"""What scenarios of a fleet have in common: how workers stop, how agents end, what must hold at the end."""

import asyncio
import json
import signal
import time
from collections.abc import Iterable

from prefactor_core import Operation, OperationType, PrefactorCoreClient, PrefactorCoreConfig, SchemaRegistry
from prefactor_core.broker.dead_letters import StoredDeadLetter
from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.queue.base import Queue
from prefactor_core.queue.intake import BufferBounds
from prefactor_emulator.verify import compare as verify
from prefactor_emulator.verify.files import read_effects, read_terminated
from tests.support.brokers.rabbitmq_server import RabbitServer
from tests.support.brokers.redis_server import RedisServer
from tests.support.emulator import Emulator
from tests.support.fleet import Child, Figures, Fleet, until
from tests.worker.commands import open_queue


def url_at(server: RedisServer | RabbitServer, prefix: str = "test") -> str:
    """Return a transport URL at a server of the test's own, whose owners are missed within a few seconds."""
    return f"{server.url}?prefix={prefix}&{'lease=3' if isinstance(server, RedisServer) else 'heartbeat=2'}"


async def stop(*workers: Child, within: float = 180.0) -> None:
    """Have workers stop cleanly, all at once."""
    for worker in workers:
        worker.signal(signal.SIGTERM)
    for worker in workers:
        assert await worker.ended(within) == 0, worker.log


async def published(fleet: Fleet, agent: Child, within: float = 180.0) -> int:
    """Wait for an agent's end: the broker has all that it put. Return how much that was."""
    report = await fleet.report(agent, within)
    assert (report["left"], report["unconfirmed"], report["dropped"]) == (0, 0, {}), report
    assert report["delivered"] == report["put"], report
    return int(report["put"])


async def takes_effect(fleet: Fleet, number: int, within: float = 180.0) -> None:
    """Wait for so many effects."""
    try:
        await until(lambda: fleet.effects_are(number), within)
    except AssertionError as error:
        logs = "\n".join(child.log for child in fleet._children)
        raise AssertionError(f"{await fleet.effects()} of {number} effects\n{logs}") from error


def check(fleet: Fleet, puts: int) -> None:
    """Everything that agents put took effect, once and in order, and nothing else did."""
    assert fleet.figures() == Figures(puts, lost=0, doubled=0, out_of_order=0, unexpected=0)


async def nothing_waits(fleet: Fleet) -> bool:
    """Whether the broker holds no operation; it may count only what no worker has read yet."""
    return await backlog(fleet) == 0


async def backlog(fleet: Fleet) -> int:
    """Return how many operations wait at the broker."""
    async with open_queue(fleet.url) as queue:
        return await queue.depth()


def effect_instances(fleet: Fleet, first: int = 0) -> list[str]:
    """Return the instances of the effects from one on, each once, in the order of their first."""
    effects = list(read_effects(str(fleet.emulator.database)))
    return list(dict.fromkeys(effect.instance_id for effect in effects[first:]))


async def effect_keys(fleet: Fleet) -> set[str]:
    """Return the keys of all that has taken effect."""
    return {effect["key"] for effect in await fleet.emulator.effects()}


# -- operations that the test itself puts

VERSION = {"name": "fleet", "external_identifier": "1"}


class Notes(BrokerQueue):
    """A queue that remembers every put, and when it was."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet.queue().broker, BufferBounds(100_000, 64 * 1024 * 1024))
        self.operations: list[Operation] = []
        self.put_at: dict[str, float] = {}

    def offer(self, item: Operation) -> None:
        self.put_at[item.idempotency_key or ""] = time.time()
        self.operations.append(item)
        super().offer(item)

    def of(self, *instances: str) -> list[Operation]:
        """Return all operations of some instances."""
        return [one for one in self.operations if one.instance_id in instances]

    def under(self, schema: str) -> list[Operation]:
        """Return what the spans of a schema and those below them put, the first create first."""
        spans: set[object] = set()
        found: list[Operation] = []
        for one in self.operations:
            if one.type is OperationType.CREATE_SPAN and (
                one.payload["schema_name"] == schema or one.payload.get("parent_span_id") in spans
            ):
                spans.add(one.span_id)
            if one.span_id in spans:
                found.append(one)
        return found

    def compared(self, fleet: Fleet) -> verify.Comparison:
        """Hold the emulator's log against what was put."""
        return compared(self.operations, fleet.emulator)


def compared(put: Iterable[Operation], emulator: Emulator) -> verify.Comparison:
    """Hold an emulator's log against what was put."""
    puts = [
        verify.Put(one.instance_id or "", verify.PUT_TYPES[one.type.value], one.idempotency_key or "")
        for one in put
    ]
    database = str(emulator.database)
    return verify.compare(puts, read_effects(database), read_terminated(database))


def client_of(fleet: Fleet, queue: Queue[Operation] | None, *schemas: str) -> PrefactorCoreClient:
    """Return a client for spans of these schemas, which puts into ``queue`` or one of its own."""
    registry = SchemaRegistry()
    for name in schemas:
        registry.register(name, {"type": "object"})
    return PrefactorCoreClient(PrefactorCoreConfig(transport_url=fleet.url, schema_registry=registry), queue)


def keys_of(operations: Iterable[Operation]) -> set[str]:
    """Return the keys of operations."""
    return {one.idempotency_key or "" for one in operations}


# -- dead letters


def operation_of(record: StoredDeadLetter) -> Operation:
    """Return the operation of a dead letter."""
    envelope = record.read()
    assert envelope is not None
    return envelope.operation


def key_of(record: StoredDeadLetter) -> str:
    """Return the key of a dead letter's operation."""
    return operation_of(record).idempotency_key or ""


async def operator(fleet: Fleet, *words: str) -> Child:
    """Start a command about dead letters."""
    return await fleet._start(
        "-m", "prefactor_worker", "dead-letters", *words, "--json", "--transport", fleet.url
    )


async def printed(child: Child, *statuses: int) -> object:
    """Wait for a command's end and return what it printed, ``None`` where it was refused."""
    assert child.process.stdout is not None
    async with asyncio.timeout(300):
        output = await child.process.stdout.read()
    status = await child.ended(60)
    assert not statuses or status in statuses, child.log
    try:
        return json.loads(output)
    except ValueError:
        return None
