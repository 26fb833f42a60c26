"""Operations: what the client asks of the API, as immutable data.

An operation is minted synchronously, with its ids and its idempotency key, and carried out later, maybe by
another process. The rules of a type stand on ``OperationType``; the names that payloads use, in ``api.wire``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, IntEnum
from types import MappingProxyType
from typing import Any, Final, Self

from pydantic_core import from_json, to_json

from prefactor_core.exceptions import InvalidInputError, InvalidPayloadError
from prefactor_core.payloads import MAX_OPERATION_BYTES, NOT_UNICODE, EncodedJson, encode_object
from prefactor_core.texts import is_unicode, problem_of_id, problem_of_sdk_header

SDK_HEADER: Final = "sdk_header"
"""Under this name an operation's metadata says which SDK made it, if that was not in this process."""

OPERATION_ID: Final = "operation_id"
"""Under this name an operation's metadata has the id that its producer gave it, if it came from a broker."""

SEQUENCE: Final = "sequence"
"""Under this name it has its place among what that producer put for the instance, likewise."""

ANSWER_TO: Final = "answer_to"
"""Under this name a replayed operation's metadata has the address at which its outcome is awaited."""

IDS: Final = ("instance_id", "span_id", "parent_span_id")
"""The names in payloads under which ids stand."""

_SHORT: Final = 1_000
"""Characters up to which what a string takes as JSON need not be counted to the byte."""

_FIXED_BYTES: Final = 160
"""About what one operation takes beside its payload: key, type, time."""


class Stage(IntEnum):
    """When in the life of its instance an operation comes. What loses a beginning loses the instance."""

    REGISTRATION = 0
    START = 1
    RUN = 2
    END = 3


SPAN: Final = "span"
"""Stands for an operation's own span among the things that are opened and closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What holds for all operations of a type.

    Attributes:
        stage: When in the life of its instance it comes.
        opens: What it opens: ``SPAN``, or names of what is to come of the instance. A bounded buffer keeps
            room for the operation that closes it.
        closes: What it closes.
        needs: The name in its payload of the span without which it makes no sense.
        repeated_as: The API's error code, with 409, for an operation that was done before and whose key has
            expired. While keys live a true repeat gets its first reply. So a create that is refused with
            ``invalid_action``, since its instance is over, was never done, however often it was sent.
    """

    stage: Stage = Stage.RUN
    opens: tuple[str, ...] = ()
    closes: str | None = None
    needs: str | None = None
    repeated_as: str | None = None


NO_RULES: Final = Rules()


class OperationType(Enum):
    """What can be asked of the API; each is one endpoint's action, and has its ``rules``."""

    REGISTER_AGENT_INSTANCE = (
        "register_agent_instance",
        Rules(stage=Stage.REGISTRATION, opens=("start", "finish"), repeated_as="conflict"),
    )
    START_AGENT_INSTANCE = (
        "start_agent_instance",
        Rules(stage=Stage.START, closes="start", repeated_as="invalid_action"),
    )
    FINISH_AGENT_INSTANCE = (
        "finish_agent_instance",
        Rules(stage=Stage.END, closes="finish", repeated_as="invalid_action"),
    )
    RECORD_QUALITY = "record_quality"
    CREATE_SPAN = ("create_span", Rules(opens=(SPAN,), needs="parent_span_id", repeated_as="conflict"))
    FINISH_SPAN = ("finish_span", Rules(closes=SPAN, needs="span_id", repeated_as="invalid_action"))

    _value_: str
    rules: Rules

    def __new__(cls, value: str, rules: Rules = NO_RULES) -> Self:
        """Make a member; its value is the name alone."""
        member = object.__new__(cls)
        member._value_ = value
        member.rules = rules
        return member

    @property
    def value(self) -> str:
        """Its name in envelopes, metrics and counts."""
        return self._value_


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing to be done at the API, complete in itself.

    Attributes:
        payload: The names that ``prefactor_core.api.wire`` lists. Whatever is given is copied at once:
            objects inside it become ``EncodedJson``, which reads as a mapping.
        timestamp: When the operation was made.
        idempotency_key: 1 to 64 printable characters; the same for every sending. Where it is missing, one
            is derived from the content.
        metadata: The caller's own. It is not sent to the API, except for the SDK header, and is lost when the
            operation goes through a broker.
        size: About how many bytes it takes, for bounds on memory and on requests.

    Raises:
        InvalidInputError: ``type`` is not an ``OperationType``, or ``timestamp`` not a ``datetime``.
        InvalidPayloadError: The payload is not JSON, or too large; the message names the path of the value.
    """

    type: OperationType
    payload: Mapping[str, Any] = field(repr=False)
    timestamp: datetime
    idempotency_key: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    size: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.type, OperationType):
            raise InvalidInputError("type", "expected an OperationType")
        if not isinstance(self.timestamp, datetime):
            raise InvalidInputError("timestamp", "expected a datetime")
        frozen: dict[str, Any] = {}
        size = _FIXED_BYTES
        for name, value in self.payload.items():
            if type(value) is str:
                plain = value.isascii() and len(value) <= _SHORT
                size += len(name) + (len(value) if plain else _utf8_length(name, value))
                frozen[name] = value
            elif type(value) is EncodedJson:
                size += len(name) + len(value.encoded)
                frozen[name] = value
            elif value is not None:
                frozen[name], length = _freeze(name, value)
                size += len(name) + length
        if size > MAX_OPERATION_BYTES:
            raise InvalidPayloadError(
                "payload", f"takes {size:,} bytes as JSON, an operation at most {MAX_OPERATION_BYTES:,}"
            )
        object.__setattr__(self, "payload", MappingProxyType(frozen))
        object.__setattr__(self, "size", size)

    @classmethod
    def minted(
        cls, kind: OperationType, payload: dict[str, Any], timestamp: datetime, key: str, size: int
    ) -> Self:
        """Make one whose payload is known to be sound: of short texts and ``EncodedJson``, all of it ours.

        ``size`` is what it takes beside its fixed part.
        """
        operation = object.__new__(cls)
        _set_type(operation, kind)
        _set_payload(operation, MappingProxyType(payload))
        _set_timestamp(operation, timestamp)
        _set_key(operation, key)
        _set_metadata(operation, _NO_METADATA)
        _set_size(operation, _FIXED_BYTES + size)
        return operation

    @property
    def instance_id(self) -> str | None:
        """The agent instance whose order this operation keeps."""
        return _text_or_none(self.payload.get("instance_id"))

    @property
    def span_id(self) -> str | None:
        """The span that it creates or finishes."""
        return _text_or_none(self.payload.get("span_id"))

    @property
    def parent_span_id(self) -> str | None:
        """The span below which it creates one."""
        return _text_or_none(self.payload.get("parent_span_id"))

    @property
    def needed_span_id(self) -> str | None:
        """The span without which it makes no sense."""
        needs = self.type.rules.needs
        return None if needs is None else _text_or_none(self.payload.get(needs))


# A frozen dataclass sets its fields in a way that takes several times as long.
_set_type: Final = vars(Operation)["type"].__set__
_set_payload: Final = vars(Operation)["payload"].__set__
_set_timestamp: Final = vars(Operation)["timestamp"].__set__
_set_key: Final = vars(Operation)["idempotency_key"].__set__
_set_metadata: Final = vars(Operation)["metadata"].__set__
_set_size: Final = vars(Operation)["size"].__set__
_NO_METADATA: Final[Mapping[str, Any]] = MappingProxyType({})


def kind_of(item: object) -> str:
    """Return what an item counts as: its operation type, or ``item`` for what is no operation."""
    return item.type.value if isinstance(item, Operation) else "item"


def require_sound(operation: Operation) -> None:
    """Refuse an operation that would do harm in a path, or to others in the same request.

    Those of a client are sound; one that was built by hand, or comes from elsewhere, may not be.

    Raises:
        InvalidInputError: Its key, an id or the SDK header is malformed. The message quotes nothing.
    """
    key = operation.idempotency_key
    if key is not None and not (isinstance(key, str) and is_unicode(key)):
        raise InvalidInputError("idempotency_key", "expected text in Unicode")
    for name in IDS:
        value = operation.payload.get(name)
        if value is not None and (problem := problem_of_id(value)):
            raise InvalidInputError(f"payload.{name}", problem)
    header = operation.metadata.get(SDK_HEADER)
    if isinstance(header, str) and (problem := problem_of_sdk_header(header)):
        raise InvalidInputError(f"metadata.{SDK_HEADER}", problem)


def _text_or_none(value: object) -> str | None:
    # Lanes and dependents are kept by ids; one that was built by hand may hold what cannot be hashed.
    return value if isinstance(value, str) else None


def _utf8_length(name: str, value: str) -> int:
    try:
        # Escapes can make a long one several times as long.
        return len(to_json(value)) - 2 if len(value) > _SHORT else len(value.encode())
    except ValueError:
        raise InvalidPayloadError(f"payload.{name}", NOT_UNICODE) from None


def _freeze(name: str, value: object) -> tuple[object, int]:
    """Return a copy of a payload's value that the caller cannot change, and its length as JSON."""
    encoded = encode_object({name: value}, "payload").encoded
    length = len(encoded) - len(name)
    copy = from_json(encoded)[name]
    if isinstance(copy, dict):
        return EncodedJson(to_json(copy)), length
    return copy, length
