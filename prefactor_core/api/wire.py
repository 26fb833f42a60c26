"""Operations as the API's requests: the one place that knows paths, ``_type`` names and field names.

Once sent, an operation's fields never change: the same whether it travels in bulk or alone, first or again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final
from urllib.parse import quote

from pydantic_core import to_json

from prefactor_core.exceptions import InvalidInputError, OperationError
from prefactor_core.operations import Operation, OperationType, require_sound
from prefactor_core.payloads import EMPTY_OBJECT, EncodedJson
from prefactor_core.utils import MAX_KEY_LENGTH

BULK_PATH: Final = "/api/v1/bulk"
PING_PATH: Final = "/api/v1/ping"

MAX_BULK_BYTES: Final = 5 * 1024 * 1024
"""The largest bulk request (assumed; no limit is published)."""

MAX_REPLY_BYTES: Final = 8 * 1024 * 1024
"""The largest reply that is read, after decompression. It echoes a span's payloads, of at most 1 MiB each."""
MAX_BULK_REPLY_BYTES: Final = 64 * 1024 * 1024
"""The largest reply to a bulk request. 250 finishes of spans with 100 KB each are answered with 25 MB."""

_MIN_KEY_LENGTH: Final = 8


@dataclass(frozen=True, slots=True)
class WireOperation:
    """An operation, ready to travel in either way.

    Attributes:
        key: The idempotency key.
        path: Where it goes as a request of its own.
        bulk_type: ``_type`` of a bulk item.
        address: What the path names and a bulk item must name itself: ``(field, id)``, or nothing.
        fields: The remaining fields as the inside of a JSON object, without braces.
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
    return f"/api/v1/agent_instance/{_segment(instance_id)}"


def _segment(identity: object) -> str:
    # Ids of an operation that was built by hand may hold anything, and must stay one part of the path.
    return quote(str(identity), safe="")


def bulk_body(items: list[bytes]) -> bytes:
    """Return the body of a bulk request."""
    return b'{"items":[' + b",".join(items) + b"]}"


def encode(operation: Operation) -> WireOperation:
    """Permit an operation into what is sent.

    Raises:
        OperationError: A field that its type needs is missing, or it is not sound. Operations that the client
            made are; one that was built by hand may not be.
    """
    payload = operation.payload
    kind = operation.type
    try:
        require_sound(operation)
        if kind is OperationType.CREATE_SPAN:
            path, bulk_type, address = "/api/v1/agent_spans", "agent_spans/create", None
            fields = b'"details":{' + _span_details(operation) + b"}"
        elif kind is OperationType.FINISH_SPAN:
            span_id = payload["span_id"]
            path, bulk_type = f"/api/v1/agent_spans/{_segment(span_id)}/finish", "agent_spans/finish"
            address = ("agent_span_id", span_id)
            fields = _fields(
                {"status": payload.get("status", "complete"), "timestamp": _time(operation)},
                result_payload=payload.get("result_payload"),
            )
        elif kind is OperationType.REGISTER_AGENT_INSTANCE:
            path, bulk_type = "/api/v1/agent_instance/register", "agent_instances/register"
            address = None
            fields = _registration(payload)
        else:
            instance_id = payload["instance_id"]
            action, fields = _instance_action(operation)
            path = f"{instance_path(instance_id)}/{action}"
            bulk_type = f"agent_instances/{action}"
            address = ("agent_instance_id", instance_id)
    except InvalidInputError as error:
        raise OperationError(str(error), kind.name) from None
    except KeyError as error:
        raise OperationError(f"the payload lacks {error.args[0]!r}", kind.name) from None
    return WireOperation(_key(operation, bulk_type, address, fields), path, bulk_type, address, fields)


def _span_details(operation: Operation) -> bytes:
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
    return _fields(
        scalars,
        payload=payload.get("payload", EMPTY_OBJECT),
        result_payload=payload.get("result_payload"),
    )


def _registration(payload: Mapping[str, Any]) -> bytes:
    scalars: dict[str, object] = {"id": payload["instance_id"]}
    for name in ("agent_id", "environment_id", "external_identifier", "purpose"):
        if payload.get(name) is not None:
            scalars[name] = payload[name]
    scalars["update_current_version"] = payload.get("update_current_version", True)
    return _fields(
        scalars,
        agent_version=payload["agent_version"],
        agent_schema_version=payload["agent_schema_version"],
    )


def _instance_action(operation: Operation) -> tuple[str, bytes]:
    payload = operation.payload
    if operation.type is OperationType.START_AGENT_INSTANCE:
        return "start", _fields({"timestamp": _time(operation)})
    if operation.type is OperationType.FINISH_AGENT_INSTANCE:
        status = payload.get("status", "complete")
        return "finish", _fields({"status": status, "timestamp": _time(operation)})
    # A quality is removed by a null payload, so its field is always there.
    quality = payload.get("payload")
    if quality is None:
        return "record_quality", _fields({"name": payload["name"], "payload": None})
    return "record_quality", _fields({"name": payload["name"]}, payload=quality)


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
    if len(key) > MAX_KEY_LENGTH:
        return f"digest:{blake2b(key.encode(), digest_size=16).hexdigest()}"
    return key if len(key) >= _MIN_KEY_LENGTH else f"prefactor:{key}"
