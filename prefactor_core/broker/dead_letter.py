"""A dead letter's record: the original envelope, why it was given up, and when.

Version 1 is a JSON object: ``v``, ``at`` (ISO 8601), ``partition``, ``reason``, ``attempts``, ``reply`` and
``envelope``, the original as text, or ``envelope_base64`` where it is not even that.
"""

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final, Self

from pydantic_core import from_json, to_json

from prefactor_core.broker.envelope import Envelope, UnreadableEnvelopeError, decode

VERSION: Final = 1

_LONGEST_REPLY: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class StoredDeadLetter:
    """A dead letter as it is stored.

    Attributes:
        envelope: The original, byte for byte.
        partition: The partition that it came from.
        reason: Why it was given up.
        attempts: How often it was sent, or begun, on its own account; 0 if it never was.
        reply: What the API answered, if that was the reason, up to 16 KiB of it.
        at: When it was set aside.
        known: Whether this release knows the record. If not, attempts and time say nothing.
    """

    envelope: bytes = field(repr=False)
    partition: int
    reason: str
    attempts: int
    reply: str | None = field(repr=False)  # it may quote a payload
    at: datetime
    known: bool = True

    @classmethod
    def of(cls, envelope: bytes, partition: int, reason: str, attempts: int, reply: str | None) -> Self:
        """Return the record of an envelope that is given up now."""
        short = None if reply is None else reply[:_LONGEST_REPLY]
        return cls(envelope, partition, reason, attempts, short, datetime.now(UTC))

    def read(self) -> Envelope | None:
        """Return what the envelope holds, or ``None`` if this release cannot read it."""
        try:
            return decode(self.envelope)
        except UnreadableEnvelopeError:
            return None

    @property
    def id(self) -> str:
        """The operation's id; where it cannot be read, one made of the bytes."""
        envelope = self.read()
        if envelope is not None:
            return envelope.id
        return "unreadable-" + blake2b(self.envelope, digest_size=8).hexdigest()


def encode_dead_letter(record: StoredDeadLetter) -> bytes:
    """Return the record as bytes."""
    fields: dict[str, Any] = {
        "v": VERSION,
        "at": record.at.isoformat(),
        "partition": record.partition,
        "reason": record.reason,
        "attempts": record.attempts,
        "reply": record.reply,
    }
    try:
        fields["envelope"] = record.envelope.decode()
    except UnicodeDecodeError:
        fields["envelope_base64"] = base64.b64encode(record.envelope).decode()
    return to_json(fields)


def decode_dead_letter(data: bytes, partition: int) -> StoredDeadLetter:
    """Return the record that ``data`` holds.

    What is no record of a version known here is shown as one all the same, with itself in the envelope's
    place: nothing that lies among the dead letters is hidden.

    Args:
        data: As it is stored.
        partition: Where it was found, if it does not say so itself.
    """
    try:
        return _known(from_json(data, allow_inf_nan=False))
    except (ValueError, KeyError, TypeError):
        reason = "no record of a dead letter that this release knows"
        return StoredDeadLetter(data, partition, reason, 0, None, _EPOCH, known=False)


def _known(fields: Any) -> StoredDeadLetter:
    """Return a record of a version known here.

    Raises:
        ValueError: It is none.
        KeyError: It is none.
        TypeError: It is none.
    """
    if fields["v"] != VERSION:
        raise ValueError("an unknown version")
    text = fields.get("envelope")
    return StoredDeadLetter(
        text.encode()
        if isinstance(text, str)
        else base64.b64decode(fields["envelope_base64"], validate=True),
        _count(fields["partition"]),
        _text(fields["reason"]),
        _count(fields["attempts"]),
        None if fields["reply"] is None else _text(fields["reply"]),
        datetime.fromisoformat(_text(fields["at"])),
    )


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _MOST:
        raise ValueError("no count")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


_MOST: Final = (1 << 63) - 1
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
