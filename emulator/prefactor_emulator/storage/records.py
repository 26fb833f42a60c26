"""What is kept of agents, versions, instances and spans: a row of its table each."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from prefactor_emulator.model import JsonObject


@dataclass(frozen=True, slots=True)
class Record:
    """A row of a table."""

    table: ClassVar[str]
    id: str


@dataclass(frozen=True, slots=True)
class AgentRecord(Record):
    """An agent."""

    table: ClassVar[str] = "agents"
    account: str
    name: str
    inserted_at: str
    updated_at: str
    description: str | None = None
    external_identifier: str | None = None
    owner_person_id: str | None = None
    risk_profile_id: str | None = None
    team_id: str | None = None
    retired: int = 0


@dataclass(frozen=True, slots=True)
class VersionRecord(Record):
    """What an agent registered of itself or of its schemas, under an identifier."""

    table: ClassVar[str] = "versions"
    agent_id: str
    kind: str
    identifier: str
    digest: bytes
    content: JsonObject


@dataclass(frozen=True, slots=True)
class InstanceRecord(Record):
    """An instance of an agent."""

    table: ClassVar[str] = "instances"
    account: str
    agent_id: str
    environment_id: str
    agent_deployment_id: str
    agent_version_id: str
    schema_version_id: str
    status: str
    external_identifier: str | None
    purpose: str
    inserted_at: str
    updated_at: str
    started_at: str | None = None
    finished_at: str | None = None
    termination_reason: str | None = None


@dataclass(frozen=True, slots=True)
class SpanRecord(Record):
    """A span."""

    table: ClassVar[str] = "spans"
    instance_id: str
    parent_span_id: str | None
    schema_name: str
    schema_title: str | None
    status: str
    payload: JsonObject
    result_payload: JsonObject | None
    sensitive_encoding: int
    summary: str | None
    flags: list[str] | None
    inserted_at: str
    updated_at: str
    started_at: str | None
    finished_at: str | None


class Quality(NamedTuple):
    """A quality of an instance."""

    name: str
    payload: JsonObject
    summary: str | None
    flags: list[str] | None


class Remembered(NamedTuple):
    """The success that an idempotency key stands for."""

    digest: bytes
    reply: bytes


class Effect(NamedTuple):
    """One line of the log of what took place."""

    at: str
    account: str
    type: str
    instance_id: str
    span_id: str | None
    key: str | None
