"""Whole instances as operations: good ones, and such as the API rejects for one reason or another."""

from datetime import UTC, datetime
from typing import Final

from prefactor_core import Operation, OperationType
from prefactor_core.identifiers import PfidFactory

PFIDS: Final = PfidFactory()


def _operation(kind: OperationType, instance: str, key: str, **fields: object) -> Operation:
    return Operation(kind, {"instance_id": instance, **fields}, datetime.now(UTC), key)


def register(instance: str, name: object = "bench") -> Operation:
    """Return a registration; with a name that is no text the API refuses it with 422."""
    return _operation(
        OperationType.REGISTER_AGENT_INSTANCE,
        instance,
        f"{instance}:register",
        agent_version={"name": name, "external_identifier": "1"},
        agent_schema_version={"external_identifier": "bench-1", "span_schemas": {"bench:step": {}}},
    )


def start(instance: str) -> Operation:
    """Return the start of an instance."""
    return _operation(OperationType.START_AGENT_INSTANCE, instance, f"{instance}:start")


def finish(instance: str) -> Operation:
    """Return the end of an instance."""
    return _operation(OperationType.FINISH_AGENT_INSTANCE, instance, f"{instance}:finish", status="complete")


def span(instance: str) -> list[Operation]:
    """Return the two operations of a new span."""
    one = PFIDS.new()
    create = {"schema_name": "bench:step", "status": "active", "payload": {"text": "what was said " * 20}}
    return [
        _operation(OperationType.CREATE_SPAN, instance, f"{one}:create", span_id=one, **create),
        _operation(OperationType.FINISH_SPAN, instance, f"{one}:finish", span_id=one, status="complete"),
    ]


def spans(instance: str, operations: int) -> list[Operation]:
    return [one for _ in range((operations + 1) // 2) for one in span(instance)][:operations]


def whole(operations: int) -> list[Operation]:
    """Return all that an instance with nothing wrong puts."""
    one = PFIDS.new()
    return [register(one), start(one), *spans(one, operations - 3), finish(one)]


def rejected(kind: str, operations: int) -> list[Operation]:
    """Return all that an instance with something wrong puts.

    Args:
        kind: ``unknown``: its registration is missing; ``refused``: the API refuses it; ``half``: the first
            half of its operations is missing; ``finished``: its spans come after its end.
        operations: How many.
    """
    one = PFIDS.new()
    if kind == "unknown":
        return [start(one), *spans(one, operations - 2), finish(one)]
    if kind == "refused":
        return [register(one, name=5), start(one), *spans(one, operations - 3), finish(one)]
    if kind == "half":
        return whole(2 * operations)[operations:]
    assert kind == "finished", kind
    return [register(one), start(one), finish(one), *spans(one, operations - 3)]
