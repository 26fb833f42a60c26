"""Operations to test with, in the shape that the client makes, and what is expected of their order."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import count, islice, zip_longest

from prefactor_core.broker.envelope import partition_of
from prefactor_core.operations import Operation, OperationType

REJECTED = "rejected by the test"
"""Why the consumer dead-letters what it was told to."""

_WHEN = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)


def create(instance: str, span: str, *, parent: str | None = None, text: str = "") -> Operation:
    """Return the operation that creates a span."""
    mother = {} if parent is None else {"parent_span_id": parent}
    fields = {"span_id": span, "schema_name": "step", "status": "active", "payload": {"text": text}}
    return _operation(OperationType.CREATE_SPAN, f"{span}:create", instance, **fields, **mother)


def finish_span(instance: str, span: str) -> Operation:
    """Return the operation that finishes a span."""
    kind = OperationType.FINISH_SPAN
    return _operation(kind, f"{span}:finish", instance, span_id=span, status="complete")


def note(instance: str, number: int) -> Operation:
    """Return an operation that stands for itself, whatever became of others."""
    key = f"{instance}:note:{number:04}"
    kind = OperationType.RECORD_QUALITY
    return _operation(kind, key, instance, name="score", payload={"value": number})


def notes(instance: str, how_many: int, *, first: int = 0) -> list[Operation]:
    """Return several of those, in order."""
    return [note(instance, number) for number in range(first, first + how_many)]


def life(instance: str, spans: int = 1) -> list[Operation]:
    """Return a whole instance, from its registration to its finish."""
    versions = {
        "agent_version": {"name": "tester", "external_identifier": "v1"},
        "agent_schema_version": {"external_identifier": "s1", "span_schemas": {}},
    }
    operations = [
        _operation(OperationType.REGISTER_AGENT_INSTANCE, f"{instance}:register", instance, **versions),
        _operation(OperationType.START_AGENT_INSTANCE, f"{instance}:start", instance),
    ]
    for number in range(spans):
        span = f"{instance}-span{number}"
        operations += [create(instance, span), finish_span(instance, span)]
    kind = OperationType.FINISH_AGENT_INSTANCE
    return [*operations, _operation(kind, f"{instance}:finish", instance, status="complete")]


def interleaved(lives: Sequence[Sequence[Operation]]) -> list[Operation]:
    """Return the operations of several instances, one of each in turn."""
    return [operation for turn in zip_longest(*lives) for operation in turn if operation is not None]


def instances_in(partition: int, partitions: int, how_many: int) -> list[str]:
    """Return ids of instances that all belong to one partition."""
    ids = (f"instance{number}" for number in count())
    return list(islice((id_ for id_ in ids if partition_of(id_, partitions) == partition), how_many))


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


def _operation(kind: OperationType, key: str, instance: str, **fields: object) -> Operation:
    return Operation(kind, {"instance_id": instance, **fields}, _WHEN, key)
