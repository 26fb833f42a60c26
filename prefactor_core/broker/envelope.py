"""What all processes of a fleet agree on: the envelope, an operation as JSON, and the partition it goes to.

Version 1 is an object with these names::

    v         1
    id        the operation's own, given by its producer; the same for every publishing of it
    instance  the agent instance whose order it keeps, or null
    seq       its place among what that producer put for that instance, from 1
    type      the operation's type, as in ``OperationType``
    at        when it was made, ISO 8601
    key       its idempotency key, or null
    sdk       the agent's SDK header
    agent     the agent of the instance, where its producer registered that: ``agent_of``; otherwise absent
    replayed  true once it was replayed from the dead letters; otherwise absent
    new_key   true if that was with a new idempotency key; otherwise absent
    answer_to where the command that replayed it waits for an answer; absent if none does
    body      the operation's payload

**The version rule.** A release reads the versions that it knows, and adds optional names without a new one.
Whatever it cannot read, a newer version or garbage, is kept among the dead letters as it is: never executed,
never dropped, and replayed once a release that knows it runs.

**The rule of texts.** Anybody may have written what a broker holds, and id, key, sdk and the ids in the body
reach logs, terminals, paths and headers. So they are printable and short, ``id`` and ``sdk`` are ASCII, and
an envelope in which they are not is unreadable to every release. ``check`` holds producers to the same.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final

from pydantic_core import from_json, to_json

from prefactor_core.exceptions import InvalidInputError, InvalidPayloadError
from prefactor_core.operations import (
    ANSWER_TO,
    IDS,
    OPERATION_ID,
    SDK_HEADER,
    SEQUENCE,
    Operation,
    OperationType,
    require_sound,
)
from prefactor_core.payloads import MAX_OPERATION_BYTES, NOT_UNICODE, EncodedJson, encode_object
from prefactor_core.texts import (
    LONGEST_ID,
    LONGEST_KEY,
    is_key,
    is_unicode,
    one_line,
    problem_of_sdk_header,
)

VERSION: Final = 1

MAX_ENVELOPE_BYTES: Final = MAX_OPERATION_BYTES + 16 * 1024
"""What an operation of the largest size takes with its envelope; anything larger is not ours."""

_TYPES: Final = {kind.value: kind for kind in OperationType}
_ID: Final = re.compile(rf"[!-,.-~][!-~]{{0,{LONGEST_ID - 1}}}")
"""Visible ASCII. Operators copy ids into commands, which would take a hyphen for the start of an option."""
_MOST: Final = (1 << 63) - 1
_LONGEST_ADDRESS: Final = 256
_LONGEST_AGENT: Final = 100
"""Characters of an agent's name; of a longer one the beginning is kept."""
_HEAD_BYTES: Final = 8 * 1024
"""What an envelope takes beside its body, at most."""
_WIDEST: Final = 6
"""Most bytes of JSON per byte of ``Operation.size``, and for what surrounds a name and its value."""


class UnreadableEnvelopeError(Exception):
    """What a broker holds is no envelope that this release can read. Never leaves this package."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """An operation and what its producer says about it, as the module's text has it.

    Readers of dead letters dedupe by the ``id``. What was ``replayed`` may have had its effect, unless that
    was with a ``new_key``, under which it has not been sent.
    """

    id: str
    sequence: int
    operation: Operation
    sdk_header: str = ""
    replayed: bool = False
    new_key: bool = False
    answer_to: str | None = None
    agent: str | None = None


def partition_of(name: str, partitions: int) -> int:
    """Return the partition, from 0, of an instance by its id, or of an operation that belongs to none."""
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % partitions


def agent_of(operation: Operation) -> str | None:
    """Return the agent that a registration names, by its id, else by its version's name, fit for a line.

    ``None`` for all other operations, and where a registration names none.
    """
    if operation.type is not OperationType.REGISTER_AGENT_INSTANCE:
        return None
    version = operation.payload.get("agent_version")
    named = version.get("name") if isinstance(version, Mapping) else None
    agent = operation.payload.get("agent_id") or named
    return one_line(agent, _LONGEST_AGENT) if isinstance(agent, str) and agent else None


def check(operation: Operation, sdk_header: str = "") -> None:
    """Raise if an operation built by hand fits into no envelope; a client's own always do.

    Raises:
        InvalidInputError: Its key, an id or a name in its payload, its size or the header fits into no
            envelope.
    """
    require_sound(operation)
    if not _is_key(operation.idempotency_key):
        raise InvalidInputError("idempotency_key", f"expected 1 to {LONGEST_KEY} printable characters")
    if problem := problem_of_sdk_header(sdk_header):
        raise InvalidInputError("sdk_header", problem)
    payload = operation.payload
    if not (all(map(str.isascii, payload)) or all(map(is_unicode, payload))):
        raise InvalidInputError("payload", NOT_UNICODE)
    # Its size is about what it takes. Only where that leaves a doubt is it measured.
    if (operation.size + len(payload)) * _WIDEST > MAX_OPERATION_BYTES:
        taken = len(encode(Envelope("", 0, operation)))
        if taken > MAX_ENVELOPE_BYTES - _HEAD_BYTES:
            raise InvalidPayloadError(
                "payload", f"takes {taken:,} bytes as JSON, an operation at most {MAX_OPERATION_BYTES:,}"
            )


def encode(envelope: Envelope) -> bytes:
    """Return the envelope as bytes."""
    operation = envelope.operation
    head: dict[str, object] = {
        "v": VERSION,
        "id": envelope.id,
        "instance": operation.instance_id,
        "seq": envelope.sequence,
        "type": operation.type.value,
        "at": operation.timestamp.isoformat(),
        "key": operation.idempotency_key,
        "sdk": envelope.sdk_header,
    }
    if envelope.agent is not None:
        head["agent"] = envelope.agent
    if envelope.replayed:
        head["replayed"] = True
    if envelope.new_key:
        head["new_key"] = True
    if envelope.answer_to is not None:
        head["answer_to"] = envelope.answer_to
    plain: dict[str, Any] = {}
    encoded: list[bytes] = []
    for name, value in operation.payload.items():
        if type(value) is EncodedJson:
            # Its bytes are the bytes that were checked at the call; they are not written anew.
            encoded.append(to_json(name) + b":" + value.encoded)
        else:
            plain[name] = value
    if plain:
        encoded.insert(0, to_json(plain)[1:-1])
    return to_json(head)[:-1] + b',"body":{' + b",".join(encoded) + b"}}"


def decode(data: bytes) -> Envelope:
    """Return the envelope that ``data`` holds.

    Raises:
        UnreadableEnvelopeError: It holds none, or one of an unknown version; the message says what is
            wrong and quotes nothing.
    """
    if len(data) > MAX_ENVELOPE_BYTES:
        raise UnreadableEnvelopeError(f"{len(data):,} bytes, an envelope has at most {MAX_ENVELOPE_BYTES:,}")
    try:
        fields = from_json(data, allow_inf_nan=False)
    except ValueError:
        raise UnreadableEnvelopeError("not JSON") from None
    if not isinstance(fields, dict):
        raise UnreadableEnvelopeError("no JSON object")
    version = fields.get("v")
    if type(version) is not int or version != VERSION:
        known = f"this release reads version {VERSION}"
        numbered = type(version) is int and abs(version) <= _MOST
        raise UnreadableEnvelopeError(
            f"envelope version {version}, {known}" if numbered else f"no envelope version; {known}"
        )
    identity, sequence = fields.get("id"), fields.get("seq")
    if type(identity) is not str or not identity or type(sequence) is not int:
        raise UnreadableEnvelopeError("an envelope without id or seq")
    if not _ID.fullmatch(identity):
        raise UnreadableEnvelopeError(
            f"id: not 1 to {LONGEST_ID} visible ASCII characters that begin with no hyphen"
        )
    if not 0 <= sequence <= _MOST:
        raise UnreadableEnvelopeError("seq: no number from 0 to 2^63 - 1")
    header = _text(fields, "sdk") or ""
    if problem := problem_of_sdk_header(header):
        raise UnreadableEnvelopeError(f"sdk: {problem}")
    address = _address(fields)
    metadata: dict[str, Any] = {OPERATION_ID: identity, SEQUENCE: sequence, SDK_HEADER: header}
    if address is not None:
        metadata[ANSWER_TO] = address
    operation = _operation_of(fields, metadata)
    replayed, new_key = fields.get("replayed") is True, fields.get("new_key") is True
    agent = _optional(fields, "agent", _LONGEST_AGENT)
    return Envelope(identity, sequence, operation, header, replayed, new_key, address, agent)


def _operation_of(fields: dict[str, Any], metadata: dict[str, Any]) -> Operation:
    kind = fields.get("type")
    if not isinstance(kind, str) or kind not in _TYPES:
        raise UnreadableEnvelopeError("an unknown operation type")
    key = _text(fields, "key")
    if not _is_key(key):
        raise UnreadableEnvelopeError(f"key: not 1 to {LONGEST_KEY} printable characters")
    body = fields.get("body")
    if not isinstance(body, dict):
        raise UnreadableEnvelopeError("body: no JSON object")
    for name in IDS:
        _text(body, name)  # operations are sorted and compared by these
    if body.get("instance_id") != _text(fields, "instance"):
        raise UnreadableEnvelopeError("instance: not the one in the body")
    try:
        payload = {
            name: encode_object(value, "payload", max_bytes=MAX_OPERATION_BYTES)
            if isinstance(value, dict)
            else value
            for name, value in body.items()
        }
        at = datetime.fromisoformat(_text(fields, "at") or "")
        operation = Operation(_TYPES[kind], payload, at, key, metadata)
        require_sound(operation)
    except InvalidPayloadError as error:
        # The path of a value may name what somebody else wrote.
        problem = str(error) if error.field == "payload" else "holds what is no JSON"
        raise UnreadableEnvelopeError(f"body: {problem}") from None
    except InvalidInputError as error:
        raise UnreadableEnvelopeError(str(error)) from None
    except ValueError:
        raise UnreadableEnvelopeError("at: no time") from None
    return operation


def _is_key(key: str | None) -> bool:
    return key is None or is_key(key)


def _address(fields: dict[str, Any]) -> str | None:
    """Return where an answer is awaited, if that is there."""
    address = _optional(fields, "answer_to", _LONGEST_ADDRESS)
    return address if address is not None and address.isascii() else None


def _optional(fields: dict[str, Any], name: str, longest: int) -> str | None:
    """Return a printable text, if that is what is there; a bad one does not hold up its operation."""
    value = fields.get(name)
    good = type(value) is str and 1 <= len(value) <= longest and value.isprintable()
    return value if good else None


def _text(fields: dict[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise UnreadableEnvelopeError(f"{name}: no text")
    return value
