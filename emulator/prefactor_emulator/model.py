"""What the emulator speaks about: operations, who asks for them, states, and refusals."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, TypeAlias

JsonObject: TypeAlias = dict[str, object]


class OperationType(StrEnum):
    """The writes to instances and spans, by the `_type` that names them in a bulk request."""

    REGISTER_INSTANCE = "agent_instances/register"
    START_INSTANCE = "agent_instances/start"
    FINISH_INSTANCE = "agent_instances/finish"
    TERMINATE_INSTANCE = "agent_instances/terminate"
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


SENSITIVE: Final = "$sensitive"
"""The name that, beside `value`, marks a value in a payload as sensitive, and tells what kind it is."""

FINAL_STATUSES: Final = (Status.COMPLETE, Status.FAILED, Status.CANCELLED)


class VersionKind(StrEnum):
    """What a registration versions: the agent itself and the schemas of its spans."""

    AGENT = "agent_version"
    SCHEMA = "agent_schema_version"


@dataclass(frozen=True, slots=True)
class Identity:
    """On whose behalf a request comes.

    Attributes:
        account: The name of the account.
        deployment: The name of the deployment whose token it is; None: the token is the account's own.
    """

    account: str
    deployment: str | None = None


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
        errors: Mapping[str, list[str]] | None = None,
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


def invalid(errors: Mapping[str, list[str]]) -> Refusal:
    """Build the refusal of a body whose fields are wrong."""
    names = ", ".join(errors)
    return Refusal(422, "validation_error", f"these fields are not acceptable: {names}", errors)


def conflict(message: str) -> Refusal:
    """Build the refusal of an id or a name that is taken."""
    return Refusal(409, "conflict", message)


def invalid_action(message: str) -> Refusal:
    """Build the refusal of what the present state does not allow."""
    return Refusal(409, "invalid_action", message)


def not_found(what: str) -> Refusal:
    """Build the refusal of what is about something that is not there, or is another account's."""
    return Refusal(404, "not_found", f"there is no {what}")


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


def timestamp(moment: datetime) -> str:
    """Write a time as the emulator keeps all of them, so that they sort as text. Naive ones are UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def utc_now() -> str:
    """Read the clock."""
    return timestamp(datetime.now(UTC))
