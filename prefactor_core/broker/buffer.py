"""The bounded buffer of what is published: by partition, in order."""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from prefactor_core.bounded import remember
from prefactor_core.broker.envelope import Envelope, agent_of, partition_of
from prefactor_core.operations import Operation, Stage
from prefactor_core.queue.base import Published
from prefactor_core.queue.intake import BufferBounds, Intake
from prefactor_core.waiters import Waiters

_SEQUENCES_KEPT: Final = 100_000
"""Instances whose sequence is remembered; beyond that the oldest begins anew."""
_AGENTS_KEPT: Final = 20_000
"""Instances whose agent is remembered, after their end too: what comes then is refused, and asked about."""


@dataclass(slots=True, eq=False)
class Line:
    """What the buffer holds for one partition, in order."""

    partition: int | None
    """Which one; ``None`` while it is not known how many there are."""
    entries: deque[tuple[int, Envelope]] = field(default_factory=deque)
    """Each with its number in the order of all."""
    sent: int = 0
    """How many at the head were sent at least once, and are not known to have arrived."""


class Buffer:
    """Holds operations until a broker has confirmed them; ``producer`` makes their ids unique.

    Operations are added to its ``intake``, in any thread; all else belongs to the event loop that publishes.
    """

    def __init__(self, bounds: BufferBounds, producer: str) -> None:
        self.intake: Intake[Operation] = Intake(bounds)
        """Where operations come in."""
        self._producer = producer
        self._sequences: dict[str, int] = {}
        self._agents: dict[str, str] = {}
        self._lines: list[Line] = [Line(None)]
        self._partitions: int | None = None
        self.changes = Waiters()
        """Those who wait for a confirmation; woken by each, to look again."""
        self._sorted = 0
        self._confirmed = 0

    @property
    def published(self) -> Published:
        """Where everything that was added is now. Can be asked for in any thread."""
        # In this order, since operations only move on: none is counted twice.
        confirmed, unconfirmed = self._confirmed, sum(line.sent for line in self._lines)
        dropped: Counter[str] = self.intake.dropped.copy()
        put = self.intake.put_count
        held = put - confirmed - dropped.total()
        unconfirmed = min(unconfirmed, held)
        return Published(put, confirmed, unconfirmed, held - unconfirmed, dict(dropped))

    def sort(self, sdk_header: Callable[[], str]) -> list[Line]:
        """Number what came in and sort it into lines; return those that it stands in now."""
        lines: dict[Line, None] = {}
        header = sdk_header()
        for operation in self.intake.take():
            self._sorted += 1
            envelope = Envelope(
                f"{self._producer}-{self._sorted}",
                self._next_sequence(operation),
                operation,
                header,
                agent=self._agent_of(operation),
            )
            line = self._line_of(envelope)
            line.entries.append((self._sorted, envelope))
            lines[line] = None
        return list(lines)

    @property
    def last_number(self) -> int:
        """The number of what was sorted last."""
        return self._sorted

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
        size = 0
        for _ in range(count):
            _, envelope = line.entries.popleft()
            size += envelope.operation.size
        self._confirmed += count
        line.sent = max(0, line.sent - count)
        if count:
            self.intake.free(count, size)
            self.changes.wake_all()

    def holds_any_up_to(self, number: int) -> bool:
        """Whether one of the first ``number`` operations that were sorted is held still."""
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
