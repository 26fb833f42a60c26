"""The bodies of the API's requests. Unknown fields are dropped; optional ones may be null."""

from datetime import datetime
from typing import Annotated, ClassVar, Final, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SkipValidation,
    WithJsonSchema,
    model_validator,
)

from prefactor_emulator.model import JsonObject, OperationType, timestamp

MAX_ITEMS: Final = 1000  # assumed: the API publishes no limit

FinalStatus: TypeAlias = Literal["complete", "failed", "cancelled"]


def _utc(value: str) -> str:
    try:
        return timestamp(datetime.fromisoformat(value))
    except (ValueError, OverflowError):
        raise ValueError("must be an ISO 8601 date and time, like 2026-01-31T12:00:00.000Z") from None


def _bounded(value: object) -> object:
    if isinstance(value, dict | list) and len(value) > MAX_ITEMS:  # before each gets a complaint of its own
        raise ValueError(f"must have at most {MAX_ITEMS} entries")
    return value


_BOUNDED: Final = BeforeValidator(_bounded)
Pfid = Annotated[str, Field(pattern="^[0-7][0-9a-hjkmnp-tv-z]{31}$", description="A PFID, in base32.")]
Text = Annotated[str, Field(min_length=1)]
Timestamp = Annotated[
    str,
    AfterValidator(_utc),
    WithJsonSchema({"type": "string", "format": "date-time", "description": "Without an offset: UTC."}),
]


class Body(BaseModel):
    """Fields that come as JSON, so that no value passes for one of another type."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class Write(Body):
    """A write, which may be repeated under its key without a further effect.

    Attributes:
        operation: What is done, where it is done to an instance or a span.
        idempotency_key: The key. It is found inside `details`, too.
    """

    operation: ClassVar[OperationType]
    idempotency_key: Annotated[str, Field(min_length=1, max_length=64)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _find_the_key(cls, value: object) -> object:
        if not isinstance(value, dict) or not isinstance(details := value.get("details"), dict):
            return value
        if value.get("idempotency_key") is not None:
            return value
        return value | {"idempotency_key": details.get("idempotency_key")}


class AgentVersion(Body):
    """What an agent says of itself."""

    name: Text | None = None
    external_identifier: Text | None = None
    description: str | None = None
    runtime_environment: JsonObject | None = None


class SpanTypeSchema(Body):
    """What spans of one name hold, and how they are told in a line of Liquid."""

    name: Text
    params_schema: JsonObject
    result_schema: JsonObject | None = None
    title: str | None = None
    description: str | None = None
    template: str | None = None
    result_template: str | None = None
    data_risk: JsonObject | None = None


class QualitySchema(Body):
    """What a quality of one name holds."""

    name: Text
    schema_: JsonObject = Field(alias="schema")
    title: str | None = None
    description: str | None = None
    template: str | None = None
    data_risk: JsonObject | None = None


class AgentSchemaVersion(Body):
    """The schemas of an agent's spans and qualities. Entries of `span_type_schemas` override the maps."""

    external_identifier: Text | None = None
    span_schemas: Annotated[dict[str, JsonObject], _BOUNDED] | None = None
    span_result_schemas: Annotated[dict[str, JsonObject], _BOUNDED] | None = None
    span_type_schemas: Annotated[list[SpanTypeSchema], _BOUNDED] | None = None
    quality_schemas: Annotated[list[QualitySchema], _BOUNDED] | None = None

    def span_types(self) -> list[SpanTypeSchema]:
        """Put together what is registered of each name of spans; later ones override earlier ones."""
        payloads, results = self.span_schemas or {}, self.span_result_schemas or {}
        mapped = [
            SpanTypeSchema(name=name, params_schema=payloads.get(name, {}), result_schema=results.get(name))
            for name in payloads | results
        ]
        return mapped + (self.span_type_schemas or [])

    def quality_types(self) -> list[SpanTypeSchema]:
        """Return what is registered of qualities in the form of what is of spans."""
        return [
            SpanTypeSchema(name=each.name, params_schema=each.schema_, template=each.template)
            for each in self.quality_schemas or ()
        ]


class RegisterInstance(Write):
    """Register a pending instance. With a deployment's token, agent and environment come from that."""

    operation = OperationType.REGISTER_INSTANCE
    agent_version: AgentVersion
    agent_schema_version: AgentSchemaVersion | None = None
    agent_id: Text | None = Field(None, description="An agent's id or name.")
    environment_id: Text | None = None
    id: Pfid | None = None
    external_identifier: Text | None = Field(None, description="Unique among the agent's instances.")
    purpose: Literal["live", "smoke_test", "eval"] | None = None
    update_current_version: bool | None = None


class StartInstance(Write):
    """Move a pending instance to active."""

    operation = OperationType.START_INSTANCE
    timestamp: Timestamp | None = None


class FinishInstance(Write):
    """Move an active instance to its end."""

    operation = OperationType.FINISH_INSTANCE
    status: FinalStatus | None = None
    timestamp: Timestamp | None = None


class TerminateInstance(Write):
    """Stop an active instance, and cancel its spans in flight."""

    operation = OperationType.TERMINATE_INSTANCE
    reason: str | None = None


class RecordQuality(Write):
    """Set a quality of an instance, or remove it with a payload of null."""

    operation = OperationType.RECORD_QUALITY
    name: Text
    payload: JsonObject | None = None


class NewSpan(Body):
    """A span: pending, active, or over already."""

    agent_instance_id: Pfid
    schema_name: Text
    # That a span could be created as cancelled is not known.
    status: Literal["pending", "active", "complete", "failed"]
    payload: JsonObject
    id: Pfid | None = None
    parent_span_id: Pfid | None = None
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    result_payload: JsonObject | None = None
    sensitive_encoding: bool | None = None


class CreateSpan(Write):
    """Create a span."""

    operation = OperationType.CREATE_SPAN
    details: NewSpan


class WrappedFinish(Body):
    """What is kept of a finish in `details`: all but its result."""

    status: FinalStatus | None = None
    timestamp: Timestamp | None = None


class FinishSpan(WrappedFinish, Write):
    """Move a span to its end, with its result."""

    operation = OperationType.FINISH_SPAN
    result_payload: JsonObject | None = None
    sensitive_encoding: bool | None = None
    details: WrappedFinish | None = Field(None, description="Accepted, but its result is lost.")


class AgentChanges(Body):
    """What can be changed of an agent."""

    name: Text | None = None
    description: str | None = None
    owner_person_id: str | None = None
    risk_profile_id: str | None = None
    team_id: str | None = None


class NewAgent(AgentChanges):
    """An agent. Its external identifier never changes."""

    name: Text
    external_identifier: Text | None = None
    id: Pfid | None = None


class CreateAgent(Write):
    """Create an agent."""

    details: NewAgent


class UpdateAgent(Write):
    """Change what is named of an agent."""

    details: AgentChanges


class GeneratePfids(Body):
    """Ask for new ids."""

    count: Annotated[int, Field(ge=1, le=1000)] = 1


class _Item(Write):
    idempotency_key: Annotated[str, Field(min_length=8, max_length=64)]


class _OfInstance(_Item):
    agent_instance_id: Pfid


class BulkRegister(_Item, RegisterInstance):
    """A registration in a bulk request."""

    type: Literal["agent_instances/register"] = Field(alias="_type")


class BulkStart(_OfInstance, StartInstance):
    """The start of an instance in a bulk request."""

    type: Literal["agent_instances/start"] = Field(alias="_type")


class BulkFinish(_OfInstance, FinishInstance):
    """The finish of an instance in a bulk request."""

    type: Literal["agent_instances/finish"] = Field(alias="_type")


class BulkQuality(_OfInstance, RecordQuality):
    """A quality in a bulk request."""

    type: Literal["agent_instances/record_quality"] = Field(alias="_type")


class BulkCreateSpan(_Item, CreateSpan):
    """The creation of a span in a bulk request: its fields in `details`, or flat beside the others."""

    type: Literal["agent_spans/create"] = Field(alias="_type")

    @model_validator(mode="before")
    @classmethod
    def _take_the_flat_form(cls, value: object) -> object:
        return (
            value | {"details": value} if isinstance(value, dict) and value.get("details") is None else value
        )


class BulkFinishSpan(_Item, FinishSpan):
    """The finish of a span in a bulk request."""

    type: Literal["agent_spans/finish"] = Field(alias="_type")
    agent_span_id: Pfid


BulkItem: TypeAlias = Annotated[
    BulkRegister | BulkStart | BulkFinish | BulkQuality | BulkCreateSpan | BulkFinishSpan,
    Field(discriminator="type"),
]


class BulkRequest(Body):
    """Writes that are carried out in order, each for itself, up to the first that is refused.

    An item that is not acceptable is answered under its key, as one that is refused.
    """

    items: list[SkipValidation[BulkItem]] = Field(max_length=MAX_ITEMS)
