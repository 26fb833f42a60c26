"""The bounded buffer of what is published: by partition, with a named policy for when it is full."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from prefactor_core.bounded import remember
from prefactor_core.broker.envelope import Envelope, agent_of, partition_of
from prefactor_core.operations import Operation, Stage
from prefactor_core.queue.admission import Admission
from prefactor_core.waiters import Waiters

BufferPolicy: TypeAlias = Literal["drop", "block"]
"""What a full buffer does: drop an operation with its dependents and count them, or have the caller wait."""

_SEQUENCES_KEPT: Final = 100_000
"""Instances whose sequence is remembered; beyond that the oldest begins anew."""
_AGENTS_KEPT: Final = 20_000
"""Instances whose agent is remembered, after their end too: what comes then is refused, and asked about."""


@dataclass(frozen=True, slots=True)
class BufferBounds:
    """How much a buffer holds, and what it does when it is full."""

    max_items: int
    max_bytes: int
    policy: BufferPolicy = "drop"


@dataclass(slots=True, eq=False)
class Line:
    """What the buffer holds for one partition, in order."""

    partition: int | None
    """Which one; ``None`` while it is not known how many there are."""
    entries: deque[tuple[int, Envelope]] = field(default_factory=deque)
    """Each with its number in the order of all puts."""
    sent: int = 0
    """How many at the head were sent at least once, and are not known to have arrived."""


class Buffer:
    """Holds operations until a broker has confirmed them; ``producer`` makes their ids unique."""

    def __init__(
        self, bounds: BufferBounds, producer: str, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._bounds = bounds
        self._producer = producer
        self._admission = Admission(bounds.max_items, bounds.max_bytes, monotonic)
        self._sequences: dict[str, int] = {}
        self._agents: dict[str, str] = {}
        self._lines: list[Line] = [Line(None)]
        self._partitions: int | None = None
        self.changes = Waiters()
        """Those who wait for room, or for a confirmation; woken by each, to look again."""
        self.put_count = 0
        """Operations that were put, dropped ones included."""
        self.items = 0
        """Operations held."""
        self.bytes = 0
        """Bytes of those."""
        self.confirmed = 0
        """Operations that the broker has confirmed."""

    @property
    def dropped(self) -> Counter[str]:
        """How many were dropped for want of room, by operation type."""
        return self._admission.dropped

    @property
    def unconfirmed(self) -> int:
        """How many of those held were sent, and are not known to have arrived."""
        return sum(line.sent for line in self._lines)

    def add(self, operation: Operation, sdk_header: str) -> Line | None:
        """Take an operation, or drop and count it; return the line that it stands in now."""
        self.put_count += 1
        if self._bounds.policy == "drop" and not self._admission.admit(
            operation, operation.size, self.items, self.bytes
        ):
            return None
        envelope = Envelope(
            f"{self._producer}-{self.put_count}",
            self._next_sequence(operation),
            operation,
            sdk_header,
            agent=self._agent_of(operation),
        )
        line = self._line_of(envelope)
        line.entries.append((self.put_count, envelope))
        self.items += 1
        self.bytes += operation.size
        return line

    def has_room(self, size: int) -> bool:
        """Whether an operation of that size fits; one always fits into an empty buffer."""
        bounds = self._bounds
        return self.items == 0 or (self.items < bounds.max_items and self.bytes + size <= bounds.max_bytes)

    def partition(self, partitions: int) -> Iterator[Line]:
        """Sort what is held into lines, now that the number of partitions is known; yield those with any."""
        (unsorted,) = self._lines
        self._partitions = partitions
        self._lines = [Line(number) for number in range(partitions)]
        for entry in unsorted.entries:
            self._line_of(entry[1]).entries.append(entry)
        return (line for line in self._lines if line.entries)

    def confirm(self, line: Line, count: int) -> None:
        """Remove the first ``count`` operations of a line: the broker has them."""
        for _ in range(count):
            _, envelope = line.entries.popleft()
            self.bytes -= envelope.operation.size
        line.sent = max(0, line.sent - count)
        self.items -= count
        self.confirmed += count
        if count:
            self.changes.wake_all()

    def holds_any_up_to(self, number: int) -> bool:
        """Whether one of the first ``number`` operations that were put is held still."""
        return any(line.entries and line.entries[0][0] <= number for line in self._lines)

    def _line_of(self, envelope: Envelope) -> Line:
        if self._partitions is None:
            return self._lines[0]
        name = envelope.operation.instance_id or envelope.id
        return self._lines[partition_of(name, self._partitions)]

    def _agent_of(self, operation: Operation) -> str | None:
        instance_id = operation.instance_id
        if instance_id is None:
            return None
        if (agent := agent_of(operation)) is not None:
            remember(self._agents, instance_id, agent, _AGENTS_KEPT)
        return self._agents.get(instance_id)

    def _next_sequence(self, operation: Operation) -> int:
        instance_id = operation.instance_id
        if instance_id is None:
            return 1
        sequence = self._sequences.get(instance_id, 0) + 1
        if operation.type.rules.stage is Stage.END:
            self._sequences.pop(instance_id, None)
        else:
            remember(self._sequences, instance_id, sequence, _SEQUENCES_KEPT)
        return sequence
