"""Dead letters: how they are stored, and the commands on them: list, show, replay, purge.

One is stored as a JSON object, version 1: ``v``, ``at`` (ISO 8601), ``partition``, ``reason``, ``attempts``,
``reply`` and ``envelope``, the original as text, or ``envelope_base64`` where it is not even that.
"""

import base64
import secrets
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from hashlib import blake2b
from typing import Any, Final, Self, TypeAlias

from pydantic_core import from_json, to_json

from prefactor_core.broker.answers import AnswerCollector
from prefactor_core.broker.driver import Broker, DeadLetterMessage
from prefactor_core.broker.envelope import (
    Envelope,
    UnreadableEnvelopeError,
    agent_of,
    decode,
    encode,
    partition_of,
)
from prefactor_core.texts import one_line

VERSION: Final = 1

UNREAD: Final = "unread"
"""The type of what this release cannot read."""
UNKNOWN: Final = "unknown"
"""The agent of an operation that does not name its own."""
Places: TypeAlias = dict[str, tuple[str, int]]
"""The order in which operations are replayed, by id: their instance, and their sequence in it."""

_LONGEST_REPLY: Final = 16 * 1024
"""Characters that are kept of a reply."""
_AT_ONCE: Final = 200
_MOST: Final = (1 << 63) - 1
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True)
class StoredDeadLetter:
    """A dead letter as it is stored.

    Attributes:
        envelope: The original, byte for byte.
        partition: The partition that it came from.
        reason: Why it was dead-lettered.
        attempts: How often it was sent, or begun, on its own account; 0 if it never was.
        reply: What the API answered, if that was the reason, up to 16 KiB of it.
        at: When it was dead-lettered.
        known: Whether this release knows the format. If not, attempts and time say nothing.
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
        """Return the dead letter of an envelope that is dead-lettered now."""
        short = None if reply is None else reply[:_LONGEST_REPLY]
        return cls(envelope, partition, reason, attempts, short, datetime.now(UTC))

    def read(self) -> Envelope | None:
        """Return what the envelope holds, or ``None`` if this release cannot read it."""
        return self._read

    @cached_property
    def _read(self) -> Envelope | None:
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

    @property
    def type(self) -> str:
        """The operation's type, or ``UNREAD``."""
        envelope = self.read()
        return UNREAD if envelope is None else envelope.operation.type.value

    @property
    def agent(self) -> str:
        """The agent of the operation's instance, as ``agent_of`` names it, or ``UNKNOWN``.

        It is known of what comes from the process that registered the instance, and of the registration.
        """
        envelope = self.read()
        return UNKNOWN if envelope is None else envelope.agent or agent_of(envelope.operation) or UNKNOWN


def encode_dead_letter(stored: StoredDeadLetter) -> bytes:
    """Return a dead letter as bytes."""
    return to_json(
        {
            "v": VERSION,
            "at": stored.at.isoformat(),
            "partition": stored.partition,
            "reason": stored.reason,
            "attempts": stored.attempts,
            "reply": stored.reply,
        }
        | envelope_fields(stored.envelope)
    )


def envelope_fields(envelope: bytes) -> dict[str, str]:
    """Return the field of a dead letter that holds its envelope, as text or in base 64."""
    try:
        return {"envelope": envelope.decode()}
    except UnicodeDecodeError:
        return {"envelope_base64": base64.b64encode(envelope).decode()}


def decode_dead_letter(data: bytes, partition: int) -> StoredDeadLetter:
    """Return the dead letter that ``data`` holds.

    What has no version known here is shown all the same, with itself in the envelope's place and the
    partition where it was found: nothing among the dead letters is hidden.
    """
    try:
        return _known(from_json(data, allow_inf_nan=False))
    except (ValueError, KeyError, TypeError):
        reason = "a dead letter in a format that this release does not know"
        return StoredDeadLetter(data, partition, reason, 0, None, _EPOCH, known=False)


def _known(fields: Any) -> StoredDeadLetter:
    """Return a dead letter of the known version; raises one of three errors for anything else."""
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


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters a command is for: those for which all that is given holds; by default all.

    Attributes:
        ids: The ids.
        instance: The id of the instance.
        type: The type, as ``StoredDeadLetter.type`` has it.
        agent: The agent, likewise.
        reason: A part of the reason as one line, in upper or lower case; ``*`` stands for anything. That of a
            lost operation is also a part of its dependents' reasons.
    """

    ids: Collection[str] | None = None
    instance: str | None = None
    type: str | None = None
    agent: str | None = None
    reason: str | None = None

    def takes(self, stored: StoredDeadLetter) -> bool:
        """Whether a dead letter is selected."""
        # The reason first: for all else the envelope has to be decoded.
        return (
            (self.reason is None or _holds(one_line(stored.reason), self.reason))
            and (self.ids is None or stored.id in self.ids)
            and (self.type is None or stored.type == self.type)
            and (self.agent is None or stored.agent == self.agent)
            and (self.instance is None or _instance_of(stored) == self.instance)
        )


def _instance_of(stored: StoredDeadLetter) -> str | None:
    envelope = stored.read()
    return None if envelope is None else envelope.operation.instance_id


def _holds(text: str, pattern: str) -> bool:
    """Whether the parts of a pattern stand in a text, in their order; what is between them is ``*``."""
    text, end = text.casefold(), 0
    for part in pattern.casefold().split("*"):
        begin = text.find(part, end)
        if begin < 0:
            return False
        end = begin + len(part)
    return True


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of a replay.

    Attributes:
        replayed_ids: The operations that were published again, and removed from the dead letters.
        unreadable: How many stay where they are because this release cannot read them.
        gone: Ids that were named, or found, and are not among those selected any more: somebody else has
            replayed or purged them.
        delivered_ids: Those of the replayed that were settled: they have taken effect, or the API wants no
            more of their instance.
        kept: Those that were dead-lettered again: reasons, and for each the ids.
        answers: Whether workers can tell the outcome by this transport, so that ``pending`` says something.
    """

    replayed_ids: Collection[str] = ()
    unreadable: int = 0
    gone: Sequence[str] = ()
    delivered_ids: Collection[str] = ()
    kept: Mapping[str, Sequence[str]] = field(default_factory=dict)
    answers: bool = True

    @property
    def replayed(self) -> int:
        """How many were published again."""
        return len(self.replayed_ids)

    @property
    def delivered(self) -> int:
        """How many were settled."""
        return len(self.delivered_ids)

    @property
    def kept_count(self) -> int:
        """How many were dead-lettered again."""
        return sum(map(len, self.kept.values()))

    @property
    def pending(self) -> int:
        """How many no worker has told the outcome of."""
        return self.replayed - self.delivered - self.kept_count


class DeadLetters:
    """The dead letters of a broker. Every call has connections of its own, and raises ``BrokerError``."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def list(self, selection: Selection = Selection()) -> AsyncGenerator[StoredDeadLetter, None]:
        """Yield what is selected, each operation once, the oldest of each partition first."""
        seen: set[str] = set()
        async with self._broker.dead_letters() as end:
            async for message in end.read():
                stored = decode_dead_letter(message.data, message.partition)
                # A worker that dies before it removes the operation has its dead letter stored twice.
                if selection.takes(stored) and stored.id not in seen:
                    seen.add(stored.id)
                    yield stored

    async def replay(self, selection: Selection, *, new_key: bool = False, wait: float = 0.0) -> Replay:
        """Publish the selected operations once more, each instance in its sequence, then remove them.

        A failure in the middle leaves what is not removed yet; replaying that again is harmless unless
        new keys were asked for.

        Args:
            selection: Which.
            new_key: Whether to give them new idempotency keys, so that the API takes them for new work.
            wait: Seconds without news after which the missing outcomes are not waited for any longer.
                0 waits for none.

        Returns:
            What was replayed, and what workers have said of it.
        """
        places: Places = {}
        unreadable: set[str] = set()
        async for stored in self.list(selection):
            if (envelope := stored.read()) is None:
                unreadable.add(stored.id)
            else:
                places[stored.id] = (envelope.operation.instance_id or "", envelope.sequence)
        # An end of its own: one that reads can keep the dead letters from other readers until it ends.
        async with self._broker.dead_letters() as end:
            address = await end.open_answers() if wait > 0 and places else None
            replayed: dict[str, None] = {}
            answers = AnswerCollector(end, replayed)
            if address is None:
                await self._publish_all(places, replayed, new_key=new_key, answer_to=None)
            else:
                # They are taken while more is published, so that they pile up nowhere.
                async with answers.collecting():
                    await self._publish_all(places, replayed, new_key=new_key, answer_to=address)
                    await answers.wait(wait)
        selected = places if selection.ids is None else selection.ids
        return Replay(
            replayed_ids=tuple(replayed),
            unreadable=len(unreadable),
            gone=tuple(id_ for id_ in selected if id_ not in replayed and id_ not in unreadable),
            delivered_ids=answers.delivered,
            kept=answers.kept,
            answers=wait <= 0 or not places or address is not None,
        )

    async def purge(self, selection: Selection) -> int:
        """Remove what is selected for good, and return how many operations that were."""
        gone: set[str] = set()
        async with self._broker.dead_letters() as end:
            batch: list[DeadLetterMessage] = []
            async for message in end.read():
                stored = decode_dead_letter(message.data, message.partition)
                if not selection.takes(stored):
                    continue
                gone.add(stored.id)
                batch.append(message)
                if len(batch) >= _AT_ONCE:
                    await end.remove(batch)
                    batch = []
            await end.remove(batch)
        return len(gone)

    async def _publish_all(
        self, places: Places, replayed: dict[str, None], *, new_key: bool, answer_to: str | None
    ) -> None:
        """Publish and remove the operations with these ids, in the order of their places; note which."""
        async with self._broker.publishing() as publishing, self._broker.dead_letters() as end:
            partitions = await publishing.partitions()
            # Read anew: receipts may live only as long as the end that read them.
            messages: dict[str, list[DeadLetterMessage]] = {}
            async for message in end.read():
                id_ = decode_dead_letter(message.data, message.partition).id
                if id_ in places:
                    messages.setdefault(id_, []).append(message)
            for id_ in sorted(messages, key=lambda id_: places[id_]):
                envelope = decode_dead_letter(messages[id_][0].data, 0).read()
                if envelope is None:
                    continue
                operation = envelope.operation
                if new_key:
                    operation = replace(operation, idempotency_key=secrets.token_hex(16))
                again = replace(
                    envelope, operation=operation, replayed=True, new_key=new_key, answer_to=answer_to
                )
                number = partition_of(operation.instance_id or envelope.id, partitions)
                await publishing.publish(number, [encode(again)])
                await end.remove(messages[id_])
                replayed[id_] = None
