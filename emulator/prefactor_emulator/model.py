"""What the emulator speaks about: operations, states, refusals, and what it keeps."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias

JsonObject: TypeAlias = dict[str, object]


class OperationType(StrEnum):
    """The writes of the API, by the `_type` that names them in a bulk request."""

    REGISTER_INSTANCE = "agent_instances/register"
    START_INSTANCE = "agent_instances/start"
    FINISH_INSTANCE = "agent_instances/finish"
    RECORD_QUALITY = "agent_instances/record_quality"
    CREATE_SPAN = "agent_spans/create"
    FINISH_SPAN = "agent_spans/finish"


class Status(StrEnum):
    """The states of instances and spans. Only instances are ever terminated."""

    PENDING = "pending"
    ACTIVE = "active"
    COMPLETE = "complete"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TERMINATED = "terminated"


FINAL_STATUSES = (Status.COMPLETE, Status.FAILED, Status.CANCELLED)
SPAN_STATUSES = (Status.PENDING, Status.ACTIVE, *FINAL_STATUSES)


class VersionKind(StrEnum):
    """What a registration versions: the agent itself and the schemas of its spans."""

    AGENT = "agent_version"
    SCHEMA = "agent_schema_version"


@dataclass(frozen=True, slots=True)
class Operation:
    """One write, the same whether it came alone or in a bulk request.

    Attributes:
        type: What is to be done.
        key: The idempotency key, already checked.
        target: The id in the path of a single request, or in the bulk item, unchecked.
        fields: The rest of the body.
    """

    type: OperationType
    key: str
    target: object
    fields: JsonObject

    def digest(self) -> bytes:
        """Fingerprint everything that makes two writes the same, whatever the order of fields."""
        return digest_of([self.type, self.target, self.fields])


def digest_of(value: object) -> bytes:
    """Fingerprint a JSON value; the order of names in objects makes no difference.

    Raises:
        Refusal: A number in it is beyond what JSON can carry on.
    """
    try:
        # Not pydantic_core: it cannot sort the names.
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise Refusal(422, "validation_error", "a number in the body is too large") from None
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


class Refusal(Exception):  # noqa: N818 - a reply of the API, not a failure of ours
    """The API says no.

    Args:
        status: The HTTP status of a single request that is refused so.
        code: The machine-readable reason.
        message: What was wrong and what to do.
        errors: Complaints by field, for `validation_error`.
        headers: Further HTTP headers that belong to the reply.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        errors: dict[str, list[str]] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.errors = errors
        self.headers = headers

    def body(self) -> JsonObject:
        """Build the API's error body."""
        body: JsonObject = {"status": "error", "code": self.code, "message": str(self)}
        if self.errors:
            body["errors"] = self.errors
        return body


OperationHook: TypeAlias = Callable[[Operation], None]
"""Called before an operation takes its way; it stands in the way by raising a refusal."""


@dataclass(frozen=True, slots=True)
class Instance:
    """An agent instance as the rules need to see it."""

    id: str
    status: str
    schema_version: int
    registered_at: str
    started_at: str | None
    finished_at: str | None
    termination_reason: str | None


@dataclass(frozen=True, slots=True)
class NewInstance:
    """A registration that has passed the rules, ready to be kept."""

    id: str
    account: str
    agent_version: int
    schema_version: int
    registration: JsonObject
    registered_at: str


@dataclass(frozen=True, slots=True)
class Span:
    """A span without its payloads: replies to writes do not carry them."""

    id: str
    instance_id: str
    parent_span_id: str | None
    schema_name: str
    status: str
    started_at: str | None
    finished_at: str | None


@dataclass(frozen=True, slots=True)
class Remembered:
    """The success that an idempotency key stands for."""

    digest: bytes
    reply: bytes


@dataclass(frozen=True, slots=True)
class Effect:
    """One line of the log of what took place."""

    at: str
    account: str
    type: OperationType
    instance_id: str
    span_id: str | None
    key: str


class Storage(Protocol):
    """What the rules ask of whatever keeps the data.

    Reads are limited to one account: what belongs to another is not there.
    """

    def remembered(self, account: str, key: str) -> Remembered | None:
        """Look up what succeeded under this key."""

    def remember(self, account: str, key: str, remembered: Remembered) -> None:
        """Keep a success for repeats of the same request."""

    def add_effect(self, effect: Effect) -> None:
        """Append to the log."""

    def version(
        self, account: str, agent: str, kind: VersionKind, identifier: str
    ) -> tuple[int, bytes] | None:
        """Find a registered version's number and the digest of its content."""

    def add_version(
        self, account: str, agent: str, kind: VersionKind, content: JsonObject, digest: bytes
    ) -> int:
        """Keep a version for ever and number it."""

    def add_schema_names(self, version: int, names: frozenset[str]) -> None:
        """Keep the span schemas' names that a schema version brings."""

    def has_schema(self, version: int, name: str) -> bool:
        """Tell whether a schema version has a span schema of that name."""

    def instance_taken(self, instance_id: str) -> bool:
        """Tell whether any account has an instance of that id."""

    def instance(self, account: str, instance_id: str) -> Instance | None:
        """Find an instance."""

    def add_instance(self, instance: NewInstance) -> None:
        """Keep a new, pending instance."""

    def start_instance(self, instance_id: str, started_at: str) -> None:
        """Move an instance to active."""

    def finish_instance(self, instance_id: str, status: str, finished_at: str) -> None:
        """Move an instance to a final state."""

    def set_quality(self, instance_id: str, name: str, payload: JsonObject | None) -> None:
        """Set, or with None remove, a quality of an instance."""

    def span_taken(self, span_id: str) -> bool:
        """Tell whether any account has a span of that id."""

    def span(self, account: str, span_id: str) -> Span | None:
        """Find a span."""

    def add_span(self, span: Span, payload: JsonObject, result: JsonObject | None) -> None:
        """Keep a new span."""

    def finish_span(self, span_id: str, status: str, finished_at: str, result: JsonObject | None) -> None:
        """Move a span to a final state."""
