"""Operations: one write each, the same whether it came alone or in a bulk request."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeAlias

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from prefactor_emulator.model import OperationType, Refusal, digest_of, invalid
from prefactor_emulator.requests import (
    BulkItem,
    CreateSpan,
    FinishInstance,
    FinishSpan,
    RecordQuality,
    RegisterInstance,
    StartInstance,
    TerminateInstance,
    Write,
)
from prefactor_emulator.storage.records import InstanceRecord

_ITEM: Final[TypeAdapter[BulkItem]] = TypeAdapter(BulkItem)
# What says where an operation goes, and not what it is.
_ADDRESS: Final = {"idempotency_key", "type", "agent_instance_id", "agent_span_id"}


_MOST_COMPLAINTS: Final = 100
_PLAINLY: Final = {
    "missing": "is required",
    "string_pattern_mismatch": "must be a PFID: 32 characters of lower-case base32",
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One write.

    Attributes:
        body: What is to be done, and with what.
        target: The id of the instance or span that it acts on; None where it makes a new one.
    """

    body: Write
    target: str | None = None

    @property
    def type(self) -> OperationType:
        """What is to be done."""
        return self.body.operation

    @property
    def key(self) -> str | None:
        """The idempotency key, if it has one."""
        return self.body.idempotency_key

    def digest(self) -> bytes:
        """Fingerprint what makes two writes the same, whatever the order of fields."""
        content = self.body.model_dump(by_alias=True, exclude_none=True, exclude=_ADDRESS)
        return digest_of([self.type, self.target, content])


FindInstance: TypeAlias = Callable[[str], InstanceRecord | None]
OperationHook: TypeAlias = Callable[[Operation, FindInstance], None]
"""Called with an operation that is new, and with what finds the instances that its token may touch; it stands
in the way by raising a refusal."""


_SINGLE: Final = (
    (re.compile("/agent_instance/register"), RegisterInstance),
    (re.compile("/agent_instance/([^/]+)/start"), StartInstance),
    (re.compile("/agent_instance/([^/]+)/finish"), FinishInstance),
    (re.compile("/agent_instance/([^/]+)/terminate"), TerminateInstance),
    (re.compile("/agent_instance/([^/]+)/record_quality"), RecordQuality),
    (re.compile("/agent_spans"), CreateSpan),
    (re.compile("/agent_spans/([^/]+)/finish"), FinishSpan),
)


def operation_of_request(path: str, value: object) -> Operation | None:
    """Read a single request as its route will; None: it is none, or is not acceptable.

    Args:
        path: Its path behind the API's prefix.
        value: Its body.
    """
    for pattern, kind in _SINGLE:
        if found := pattern.fullmatch(path):
            try:
                return Operation(kind.model_validate(value), *found.groups())
            except ValidationError:
                return None
    return None


def operation_of_item(item: object) -> Operation:
    """Read one item of a bulk request.

    Raises:
        Refusal: It is not acceptable.
    """
    try:
        body = _ITEM.validate_python(item)
    except ValidationError as error:
        raise _refusal_of_item(error) from None
    target = getattr(body, "agent_span_id", None) or getattr(body, "agent_instance_id", None)
    return Operation(body, target)


def _refusal_of_item(error: ValidationError) -> Refusal:
    details = error.errors(include_url=False, include_input=False)
    if details[0]["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        known = ", ".join(each for each in OperationType if each is not OperationType.TERMINATE_INSTANCE)
        return Refusal(422, "unknown_type", "this _type is unknown", {"_type": [f"must be one of {known}"]})
    return invalid(complaints(details, skip=1))


def complaints(details: Iterable[ErrorDetails | Mapping[str, Any]], skip: int) -> dict[str, list[str]]:
    """Turn what pydantic says of a body into complaints by field.

    Args:
        details: What it says.
        skip: How many steps into each field's place tell no field.
    """
    found: dict[str, list[str]] = {}
    for each in islice(details, _MOST_COMPLAINTS):
        field = ".".join(str(step) for step in each["loc"][skip:])
        found.setdefault(field, []).append(
            _PLAINLY.get(each["type"]) or str(each["msg"]).removeprefix("Value error, ")
        )
    return found
