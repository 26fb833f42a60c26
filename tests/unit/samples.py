"""Operations and ids to test with."""

from datetime import UTC, datetime
from typing import Any, Final

from prefactor_core import Operation, OperationType

AT: Final = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
AGENT: Final = "0" + "a" * 31
ENVIRONMENT: Final = "0" + "e" * 31
INSTANCE: Final = "0" + "1" * 31
SPAN: Final = "0" + "2" * 31
PARENT: Final = "0" + "3" * 31

PAYLOADS: Final[dict[OperationType, dict[str, Any]]] = {
    OperationType.REGISTER_AGENT_INSTANCE: {
        "instance_id": INSTANCE,
        "agent_version": {"name": "bot", "external_identifier": "v1"},
        "agent_schema_version": {"external_identifier": "s1", "span_schemas": {"llm": {}}},
    },
    OperationType.START_AGENT_INSTANCE: {"instance_id": INSTANCE, "timestamp": AT.isoformat()},
    OperationType.FINISH_AGENT_INSTANCE: {
        "instance_id": INSTANCE,
        "status": "failed",
        "timestamp": AT.isoformat(),
    },
    OperationType.RECORD_QUALITY: {"instance_id": INSTANCE, "name": "tone", "payload": {"score": 3}},
    OperationType.CREATE_SPAN: {
        "instance_id": INSTANCE,
        "span_id": SPAN,
        "schema_name": "llm",
        "status": "active",
        "payload": {"q": "ü"},
    },
    OperationType.FINISH_SPAN: {
        "instance_id": INSTANCE,
        "span_id": SPAN,
        "status": "complete",
        "timestamp": AT.isoformat(),
    },
}
"""What each type needs."""


def operation(kind: OperationType, key: str | None = "a-key-of-its-own", **changes: Any) -> Operation:
    """Return an operation of that type; a change to ``None`` leaves the field out."""
    return Operation(kind, {**PAYLOADS[kind], **changes}, AT, key)
