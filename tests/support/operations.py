"""Operations to test with: short to write, in the shape that the client makes."""

import random
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from prefactor_core.operations import Operation, OperationType

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def register(instance: str, name: object = "tester", schemas: Iterable[str] = ()) -> Operation:
    return Operation(
        OperationType.REGISTER_AGENT_INSTANCE,
        {
            "instance_id": instance,
            "agent_version": {"name": name, "external_identifier": "v1"},
            "agent_schema_version": {
                "external_identifier": "s1",
                "span_schemas": {schema: {} for schema in schemas},
            },
        },
        WHEN,
        f"{instance}:register",
    )


def start(instance: str) -> Operation:
    return Operation(
        OperationType.START_AGENT_INSTANCE, {"instance_id": instance}, WHEN, f"{instance}:starting"
    )


def finish(instance: str) -> Operation:
    return Operation(
        OperationType.FINISH_AGENT_INSTANCE,
        {"instance_id": instance, "status": "complete"},
        WHEN,
        f"{instance}:finish",
    )


def quality(instance: str, sequence: int = 0) -> Operation:
    return Operation(
        OperationType.RECORD_QUALITY,
        {"instance_id": instance, "name": "score", "payload": {"value": sequence}},
        WHEN,
        f"{instance}:quality:{sequence}",
    )


def create(
    instance: str,
    span: str,
    parent: str | None = None,
    *,
    payload: Mapping[str, object] | None = None,
    finished: bool = False,
) -> Operation:
    fields: dict[str, object] = {
        "instance_id": instance,
        "span_id": span,
        "schema_name": "step",
        "status": "complete" if finished else "active",
        "payload": dict(payload or {"a": 1}),
    }
    if parent is not None:
        fields["parent_span_id"] = parent
    if finished:
        fields["finished_at"] = WHEN.isoformat()
    return Operation(OperationType.CREATE_SPAN, fields, WHEN, f"{span}:create")


def finish_span(instance: str, span: str) -> Operation:
    return Operation(
        OperationType.FINISH_SPAN,
        {"instance_id": instance, "span_id": span, "status": "complete", "result_payload": {"r": 2}},
        WHEN,
        f"{span}:finish",
    )


def life(instance: str, spans: int = 1) -> list[Operation]:
    """A whole instance, from its registration to its finish."""
    operations = [register(instance), start(instance)]
    for number in range(spans):
        span = f"{instance}-span{number}"
        operations += [create(instance, span), finish_span(instance, span)]
    return [*operations, finish(instance)]


def key_of(operation: Operation) -> str:
    assert operation.idempotency_key is not None
    return operation.idempotency_key


def keys_of(operations: list[Operation]) -> list[str]:
    return [key_of(operation) for operation in operations]


def dice(seed: int) -> random.Random:
    """Chance that is the same in every run."""
    return random.Random(seed)  # noqa: S311 -- it decides over tests, not over secrets
