"""Operations as the API's requests: the one place that knows paths, ``_type`` names and field names.

Once sent, an operation's fields never change: the same whether it travels in bulk or alone, first or again.
An operation's payload uses these names; those with a question mark may be missing:

======================== ============================================================================
type                     payload
======================== ============================================================================
REGISTER_AGENT_INSTANCE  instance_id, agent_version, agent_schema_version, agent_id?, environment_id?,
                         external_identifier?, purpose?, update_current_version?
START_AGENT_INSTANCE     instance_id, timestamp?
FINISH_AGENT_INSTANCE    instance_id, status?, timestamp?
RECORD_QUALITY           instance_id, name, payload?
CREATE_SPAN              instance_id, schema_name, span_id?, status?, payload?, parent_span_id?,
                         started_at?, finished_at?, result_payload?
FINISH_SPAN              instance_id, span_id, status?, timestamp?, result_payload?
======================== ============================================================================
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final
from urllib.parse import quote

from pydantic_core import to_json

from prefactor_core.exceptions import InvalidInputError, OperationError
from prefactor_core.operations import Operation, OperationType, require_sound
from prefactor_core.payloads import EMPTY_OBJECT, EncodedJson
from prefactor_core.texts import LONGEST_KEY

BULK_PATH: Final = "/api/v1/bulk"
PING_PATH: Final = "/api/v1/ping"
_INSTANCES: Final = "/api/v1/agent_instance"
_SPANS: Final = "/api/v1/agent_spans"

MAX_BULK_BYTES: Final = 5 * 1024 * 1024
"""The largest bulk request (assumed; no limit is published)."""

MAX_REPLY_BYTES: Final = 8 * 1024 * 1024
"""The largest reply that is read, after decompression. It echoes a span's payloads, of at most 1 MiB each."""
MAX_BULK_REPLY_BYTES: Final = 64 * 1024 * 1024
"""The largest reply to a bulk request. 250 finishes of spans with 100 KB each are answered with 25 MB."""

_MIN_KEY_LENGTH: Final = 8


@dataclass(frozen=True, slots=True)
class WireOperation:
    """An operation, ready to travel in bulk or alone.

    ``address`` is the field and the id that the path names and a bulk item has to name itself. ``fields`` are
    the others, as the inside of a JSON object.
    """

    key: str
    path: str
    bulk_type: str
    address: tuple[str, str] | None
    fields: bytes

    def bulk_item(self) -> bytes:
        """Return it as one of the ``items`` of a bulk request."""
        head: dict[str, str] = {"_type": self.bulk_type, "idempotency_key": self.key}
        if self.address is not None:
            head[self.address[0]] = self.address[1]
        return to_json(head)[:-1] + b"," + self.fields + b"}"

    def single_body(self) -> bytes:
        """Return the body of its own request."""
        return to_json({"idempotency_key": self.key})[:-1] + b"," + self.fields + b"}"


def instance_path(instance_id: str) -> str:
    """Return where an instance is read."""
    return f"{_INSTANCES}/{_segment(instance_id)}"


def _segment(identity: object) -> str:
    # Ids of an operation that was built by hand may hold anything, and must stay one part of the path.
    return quote(str(identity), safe="")


def bulk_body(items: list[bytes]) -> bytes:
    """Return the body of a bulk request."""
    return b'{"items":[' + b",".join(items) + b"]}"


def encode(operation: Operation) -> WireOperation:
    """Return an operation in the form in which it is sent.

    Raises:
        OperationError: A field that its type needs is missing, or it is not sound. Operations that the client
            made are; one that was built by hand may not be.
    """
    endpoint = _ENDPOINTS[operation.type]
    path, address = endpoint.path, None
    try:
        require_sound(operation)
        if endpoint.address is not None:
            field, name = endpoint.address
            address = (field, operation.payload[name])
            path = path.format(_segment(address[1]))
        fields = endpoint.fields(operation)
    except InvalidInputError as error:
        raise OperationError(str(error), operation.type.name) from None
    except KeyError as error:
        raise OperationError(f"the payload lacks {error.args[0]!r}", operation.type.name) from None
    key = _key(operation, endpoint.bulk_type, address, fields)
    return WireOperation(key, path, endpoint.bulk_type, address, fields)


def _register(operation: Operation) -> bytes:
    payload = operation.payload
    scalars: dict[str, object] = {"id": payload["instance_id"]}
    for name in ("agent_id", "environment_id", "external_identifier", "purpose"):
        if payload.get(name) is not None:
            scalars[name] = payload[name]
    scalars["update_current_version"] = payload.get("update_current_version", True)
    return _fields(
        scalars, agent_version=payload["agent_version"], agent_schema_version=payload["agent_schema_version"]
    )


def _start(operation: Operation) -> bytes:
    return _fields({"timestamp": _time(operation)})


def _finish_instance(operation: Operation) -> bytes:
    return _fields({"status": operation.payload.get("status", "complete"), "timestamp": _time(operation)})


def _finish_span(operation: Operation) -> bytes:
    result = _fields({}, result_payload=operation.payload.get("result_payload"))
    return _finish_instance(operation) + result


def _record_quality(operation: Operation) -> bytes:
    scalars = {"name": operation.payload["name"]}
    quality = operation.payload.get("payload")
    # A quality is removed by a null payload, so its field is always there.
    return _fields(scalars, payload=quality) if quality is not None else _fields({**scalars, "payload": None})


def _create_span(operation: Operation) -> bytes:
    payload = operation.payload
    scalars: dict[str, object] = {
        "agent_instance_id": payload["instance_id"],
        "schema_name": payload["schema_name"],
        "status": payload.get("status", "active"),
    }
    for field, name in (
        ("id", "span_id"),
        ("parent_span_id", "parent_span_id"),
        ("started_at", "started_at"),
        ("finished_at", "finished_at"),
    ):
        value = payload.get(name)
        if value is not None:
            scalars[field] = value
    details = _fields(
        scalars, payload=payload.get("payload", EMPTY_OBJECT), result_payload=payload.get("result_payload")
    )
    return b'"details":{' + details + b"}"


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """Where operations of a type go, and what makes their fields."""

    bulk_type: str
    path: str
    fields: Callable[[Operation], bytes]
    address: tuple[str, str] | None = None  # the field that names what the path names, and its payload name


_INSTANCE: Final = ("agent_instance_id", "instance_id")
_ENDPOINTS: Final = {
    OperationType.REGISTER_AGENT_INSTANCE: _Endpoint(
        "agent_instances/register", f"{_INSTANCES}/register", _register
    ),
    OperationType.START_AGENT_INSTANCE: _Endpoint(
        "agent_instances/start", f"{_INSTANCES}/{{}}/start", _start, _INSTANCE
    ),
    OperationType.FINISH_AGENT_INSTANCE: _Endpoint(
        "agent_instances/finish", f"{_INSTANCES}/{{}}/finish", _finish_instance, _INSTANCE
    ),
    OperationType.RECORD_QUALITY: _Endpoint(
        "agent_instances/record_quality", f"{_INSTANCES}/{{}}/record_quality", _record_quality, _INSTANCE
    ),
    OperationType.CREATE_SPAN: _Endpoint("agent_spans/create", _SPANS, _create_span),
    OperationType.FINISH_SPAN: _Endpoint(
        "agent_spans/finish", f"{_SPANS}/{{}}/finish", _finish_span, ("agent_span_id", "span_id")
    ),
}


def _fields(scalars: Mapping[str, object], **objects: object) -> bytes:
    """Join plain values and JSON objects that are encoded already, without braces."""
    # An object in the place of a text is the API's to refuse: it must not stop the others of its request.
    joined = to_json(scalars, fallback=EncodedJson.decode)[1:-1]
    for name, value in objects.items():
        if value is not None:
            encoded = value.encoded if isinstance(value, EncodedJson) else to_json(value)
            joined += b',"' + name.encode("ascii") + b'":' + encoded
    return joined


def _time(operation: Operation) -> str:
    timestamp = operation.payload.get("timestamp")
    return timestamp if isinstance(timestamp, str) else operation.timestamp.isoformat()


def _key(operation: Operation, bulk_type: str, address: tuple[str, str] | None, fields: bytes) -> str:
    """Return the key that is sent: 8 to 64 characters, the same for every sending."""
    key = operation.idempotency_key
    if not key:
        content = f"{bulk_type} {address} {operation.timestamp.isoformat()} ".encode() + fields
        return f"derived:{blake2b(content, digest_size=16).hexdigest()}"
    if len(key) > LONGEST_KEY:
        return f"digest:{blake2b(key.encode(), digest_size=16).hexdigest()}"
    return key if len(key) >= _MIN_KEY_LENGTH else f"prefactor:{key}"
