"""Operations to test with, in the shape that the client makes, and what is expected of their order."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import count

from prefactor_core.broker.envelope import partition_of
from prefactor_core.operations import Operation, OperationType

REJECTED = "rejected by the test"
"""Why the consumer dead-letters what it was told to."""

_WHEN = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)


def register(instance: str) -> Operation:
    """Return the operation that opens an instance."""
    version = {"name": "tester", "external_identifier": "v1"}
    schemas = {"external_identifier": "s1", "span_schemas": {}}
    return Operation(
        OperationType.REGISTER_AGENT_INSTANCE,
        {"instance_id": instance, "agent_version": version, "agent_schema_version": schemas},
        _WHEN,
        f"{instance}:register",
    )


def start(instance: str) -> Operation:
    """Return the operation that starts an instance."""
    payload = {"instance_id": instance}
    return Operation(OperationType.START_AGENT_INSTANCE, payload, _WHEN, f"{instance}:start")


def finish(instance: str) -> Operation:
    """Return the operation that closes an instance."""
    payload = {"instance_id": instance, "status": "complete"}
    return Operation(OperationType.FINISH_AGENT_INSTANCE, payload, _WHEN, f"{instance}:finish")


def create(instance: str, span: str, *, parent: str | None = None, text: str = "") -> Operation:
    """Return the operation that creates a span."""
    fields: dict[str, object] = {
        "instance_id": instance,
        "span_id": span,
        "schema_name": "step",
        "status": "active",
        "payload": {"text": text},
    }
    if parent is not None:
        fields["parent_span_id"] = parent
    return Operation(OperationType.CREATE_SPAN, fields, _WHEN, f"{span}:create")


def finish_span(instance: str, span: str) -> Operation:
    """Return the operation that finishes a span."""
    payload = {"instance_id": instance, "span_id": span, "status": "complete"}
    return Operation(OperationType.FINISH_SPAN, payload, _WHEN, f"{span}:finish")


def note(instance: str, number: int) -> Operation:
    """Return an operation that stands for itself, whatever became of others."""
    payload = {"instance_id": instance, "name": "score", "payload": {"value": number}}
    return Operation(OperationType.RECORD_QUALITY, payload, _WHEN, f"{instance}:note:{number:04}")


def notes(instance: str, how_many: int, *, first: int = 0) -> list[Operation]:
    """Return several of those, in order."""
    return [note(instance, number) for number in range(first, first + how_many)]


def life(instance: str, spans: int = 1) -> list[Operation]:
    """Return a whole instance, from its registration to its finish."""
    operations = [register(instance), start(instance)]
    for number in range(spans):
        span = f"{instance}-span{number}"
        operations += [create(instance, span), finish_span(instance, span)]
    return [*operations, finish(instance)]


def interleaved(lives: Sequence[Sequence[Operation]]) -> list[Operation]:
    """Return the operations of several instances, one of each in turn."""
    longest = max(len(operations) for operations in lives)
    return [life[turn] for turn in range(longest) for life in lives if turn < len(life)]


def instances_in(partition: int, partitions: int, how_many: int) -> list[str]:
    """Return ids of instances that all belong to one partition."""
    found: list[str] = []
    for number in count():
        if partition_of(f"instance{number}", partitions) == partition:
            found.append(f"instance{number}")
        if len(found) == how_many:
            return found
    raise AssertionError("counting never ends")


def numbered(name: str, how_many: int) -> list[bytes]:
    """Return messages that are no envelopes, in order."""
    return [f"{name}:{number:04}".encode() for number in range(how_many)]


def key_of(operation: Operation) -> str:
    """Return what the tests tell operations apart by."""
    assert operation.idempotency_key is not None
    return operation.idempotency_key


def keys_of(operations: Iterable[Operation]) -> list[str]:
    """Return the keys of several operations."""
    return [key_of(operation) for operation in operations]


def by_instance(operations: Iterable[Operation]) -> dict[str, list[str]]:
    """Return the keys of each instance, in order: what two runs have to agree in."""
    found: dict[str, list[str]] = {}
    for operation in operations:
        found.setdefault(operation.instance_id or "", []).append(key_of(operation))
    return found
