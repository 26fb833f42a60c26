"""What the API's replies hold."""

from typing import Annotated, Generic, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from prefactor_emulator.model import JsonObject
from prefactor_emulator.requests import Pfid, Text

T = TypeVar("T")
Time: TypeAlias = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
InstanceStatus: TypeAlias = Literal["pending", "active", "complete", "failed", "cancelled", "terminated"]
SpanStatus: TypeAlias = Literal["pending", "active", "complete", "failed", "cancelled"]


class Part(BaseModel):
    """A part of a reply, which has no other fields than these."""

    model_config = ConfigDict(extra="forbid")


class SpanCounts(Part):
    """How many spans an instance has. Those that are over count as finished."""

    total: int
    active: int
    complete: int
    failed: int
    cancelled: int
    finished: int


class Instance(Part):
    """An agent instance."""

    type: Literal["agent_instance"] = "agent_instance"
    id: Pfid
    account_id: Pfid
    agent_id: Pfid
    agent_version_id: Pfid
    environment_id: Pfid
    agent_deployment_id: Pfid
    status: InstanceStatus
    inserted_at: Time
    updated_at: Time
    started_at: Time | None
    finished_at: Time | None
    termination_reason: str | None
    external_identifier: str | None
    purpose: Literal["live", "smoke_test", "eval"]
    span_counts: SpanCounts
    quality_payloads: dict[str, JsonObject]
    quality_summaries: dict[str, str]


class Span(Part):
    """A span."""

    type: Literal["agent_span"] = "agent_span"
    id: Pfid
    account_id: Pfid
    agent_id: Pfid
    agent_instance_id: Pfid
    parent_span_id: Pfid | None
    schema_name: Text
    schema_title: str | None
    status: SpanStatus
    payload: JsonObject
    result_payload: JsonObject | None
    summary: str | None
    started_at: Time | None
    inserted_at: Time
    updated_at: Time
    finished_at: Time | None


class InstanceCounts(SpanCounts):
    """How many instances an agent has. Those that are over count as finished."""

    pending: int
    terminated: int


class AvailableActions(Part):
    """What can be done with an agent now."""

    update: bool
    retire: bool
    reinstate: bool
    delete: bool


class Agent(Part):
    """An agent."""

    type: Literal["agent"] = "agent"
    id: Pfid
    name: Text
    description: str | None
    external_identifier: str | None
    status: Literal["pending", "active", "dormant", "retired"]
    owner_person_id: str | None
    risk_profile_id: str | None
    team_id: str | None
    instance_counts: InstanceCounts | None
    available_actions: AvailableActions
    inserted_at: Time
    updated_at: Time


class Success(Part, Generic[T]):
    """The reply to what was done."""

    status: Literal["success"]
    details: T


class Control(Part):
    """The service asks the agent to stop."""

    terminate: Literal[True]
    reason: str | None


class SpanSuccess(Success[Span]):
    """The reply to the write of a span. It carries `control` once the span's instance is terminated."""

    control: Control | None = None


class Nothing(Part):
    """An empty object."""


class Pfids(Part):
    """New ids."""

    pfids: list[Pfid]


class Pagination(Part):
    """Which part of a list this is. Items are counted from 1, pages from 0."""

    item_count: int
    item_start: int
    item_end: int
    page_count: int
    page_index: int
    page_offset: int
    page_size: int
    next_page_offset: int | None
    previous_page_offset: int | None


class Sorting(Part):
    """How a list is sorted."""

    field: str
    direction: Literal["asc", "desc"]


class Page(Part, Generic[T]):
    """A part of a list."""

    status: Literal["success"] = "success"
    summaries: list[T]
    pagination: Pagination
    sorting: Sorting


class Failure(Part):
    """The reply to what was refused."""

    status: Literal["error"]
    code: Text
    message: Text
    errors: dict[str, list[Text]] | None = Field(None, description="By field; only with 422.")


class BulkReply(Part):
    """The outputs of a bulk request, by idempotency key, up to the first error."""

    status: Literal["success"]
    outputs: dict[str, Success[Instance] | SpanSuccess | Failure]
