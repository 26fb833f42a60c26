"""What the client knows of an instance and of a span."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

FinishStatus: TypeAlias = Literal["complete", "failed", "cancelled"]
"""How an instance or a span ends."""


def utc_now() -> datetime:
    """Return the time, with its zone."""
    return datetime.now(UTC)


@dataclass
class AgentInstance:
    """One execution of an agent, as far as this client has put it.

    Attributes:
        agent_id: Empty where the token names the deployment.
        status: ``pending``, ``active``, ``complete``, ``failed`` or ``cancelled``.
        metadata: Whatever the caller wants to keep with it; never sent.
        purpose: ``live``, ``smoke_test`` or ``eval``, where it was given.
        quality_payloads: What this client has recorded of its qualities, by name: the latest 20, of 64 KiB
            together at most.
        schema_names: The span types of its schema version; empty where the version names none.
    """

    id: str
    agent_id: str
    status: str = "pending"
    created_at: datetime = field(default_factory=utc_now)
    started_at: datetime | None = None
    finished_at: datetime | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    purpose: str | None = None
    quality_payloads: Mapping[str, Mapping[str, Any]] | None = field(default=None, repr=False)
    schema_names: frozenset[str] = field(default=frozenset(), repr=False)


@dataclass
class Span:
    """One open unit of work within an instance.

    Attributes:
        status: ``pending`` (not put yet), ``active``, or a terminal status.
        payload: What was given as the span's input before it was put.
        created_at: When the span was prepared.
        started_at: When it was put as active.
    """

    id: str
    instance_id: str
    schema_name: str
    parent_span_id: str | None = None
    status: str = "pending"
    payload: Mapping[str, Any] = field(default_factory=dict, repr=False)
    created_at: datetime = field(default_factory=utc_now)
    started_at: datetime | None = None
    finished_at: datetime | None = None
