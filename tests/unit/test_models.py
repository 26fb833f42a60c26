"""What the client knows of an instance and of a span."""

from datetime import UTC, datetime
from typing import Any

import pytest

from prefactor_core import AgentInstance, Span

OURS: dict[str, Any] = {"purpose": None, "quality_payloads": None, "schema_names": frozenset()}
NOT_STARTED: dict[str, Any] = {"status": "pending", "started_at": None, "finished_at": None}


@pytest.mark.parametrize(
    ("model", "given", "rest"),
    [
        (AgentInstance, {"id": "i", "agent_id": "a"}, {"metadata": {}, **OURS}),
        (
            Span,
            {"id": "s", "instance_id": "i", "schema_name": "llm"},
            {"parent_span_id": None, "payload": {}},
        ),
    ],
)
def test_defaults(model: type, given: dict[str, Any], rest: dict[str, Any]) -> None:
    before = datetime.now(UTC)
    one, other = model(**given), model(**given)
    fields = dict(vars(one))
    assert before <= fields.pop("created_at") <= datetime.now(UTC)
    assert fields == {**given, **rest, **NOT_STARTED}
    for name, value in fields.items():
        if isinstance(value, dict):
            assert getattr(other, name) is not value, "each has a dictionary of its own"


def test_positions_are_those_of_the_reference() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    ended = {"status": "active", "created_at": at, "started_at": at, "finished_at": at}
    instance = AgentInstance("i", "a", "active", at, at, at, {"m": 1})
    assert vars(instance) == {"id": "i", "agent_id": "a", "metadata": {"m": 1}, **ended, **OURS}
    span = Span("s", "i", "llm", "p", "active", {"q": 1}, at, at, at)
    named = {"id": "s", "instance_id": "i", "schema_name": "llm", "parent_span_id": "p"}
    assert vars(span) == {**named, "payload": {"q": 1}, **ended}
