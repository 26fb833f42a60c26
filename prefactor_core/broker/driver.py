"""What a broker has to provide for ``BrokerQueue`` to make a ``Queue`` of it.

A ``Broker`` opens three ends, each with connections of its own: one that publishes (agents), one that
consumes (workers), one that looks after dead letters (operators). The shared code above them keeps buffers,
batches, order, assignments, prefetching and accounts; what is below is the broker's own way of keeping one
owner a partition.

Every failure of the driver or the network leaves a method as ``BrokerError``, and every method bounds its
waits. After a ``BrokerError`` it is not known whether the call took effect: it may be repeated, and that is
harmless.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

MAX_ATTEMPTS: Final = 3
"""Attempts at an operation in isolation, each recorded, before it is dead-lettered."""


@dataclass(slots=True, eq=False)
class Message:
    """One operation as a broker holds it."""

    data: bytes
    """The envelope."""
    receipt: object
    """What the driver settles it by."""
    redelivered: bool = False
    """Whether somebody may have handled it before."""


@dataclass(frozen=True, slots=True)
class DeadLetterMessage:
    """One dead letter as a broker holds it."""

    data: bytes
    partition: int
    """The partition that the operation came from."""
    receipt: object
    """What the driver removes it by."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The workers of one prefix, this one included."""

    size: int
    rank: int | None = None
    """This one's place among them, from 0, where the broker can tell."""


@dataclass(frozen=True, slots=True)
class PartitionState:
    """What an operator sees of a partition."""

    number: int
    backlog: int
    """Its backlog; where the broker cannot count what is handed out, without that."""
    dead: int | None
    """Dead letters that came from it, where the broker keeps them apart."""
    owner: str | None
    """Name of its owner, ``None`` if it has none, empty if the broker cannot tell who."""
    oldest: float | None = None
    """When its oldest operation was published, in seconds since the Unix epoch, where the broker can tell."""


class End(ABC):
    """One end of a broker: some connections, made when first needed; an ``async with`` closes them."""

    @abstractmethod
    async def disconnect(self) -> None:
        """Close all connections, within a few seconds. Never raises ``BrokerError``."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.disconnect()


class PublishingEnd(End):
    """Where an agent's operations go."""

    @abstractmethod
    async def partitions(self) -> int:
        """Return the number of partitions: the recorded one, or the wanted one, recorded by this call."""

    @abstractmethod
    async def publish(self, partition: int, batch: Sequence[bytes]) -> None:
        """Publish envelopes to a partition, in order, and wait until the broker has confirmed all of them.

        The caller has at most one batch of a partition in flight, and after a failure sends it again from
        the first envelope that was not confirmed.

        Raises:
            BrokerError: Not all are confirmed; its ``confirmed`` says how many at the head are.
        """


@dataclass(frozen=True, slots=True)
class Loss:
    """Why a partition was lost."""

    reason: str
    """In words. Losses with the same words are logged together, so it names no partition."""
    serious: bool = False
    """Whether operations may be gone with it."""


class Partition(ABC):
    """A partition that this process owns. All calls but ``read`` may overlap."""

    number: int

    @property
    @abstractmethod
    def held(self) -> bool:
        """Whether this process can be sure to be the owner still.

        Decided here and now, without the network: false as soon as the lease could have run out, also when
        the process was frozen meanwhile. Once false it stays so.
        """

    @property
    def loss(self) -> Loss:
        """Why it is not ``held`` any more, for the log; asked only once that is so."""
        return Loss("its lease ran out")

    @property
    @abstractmethod
    def isolated(self) -> bool:
        """Whether earlier owners crashed here, so that operations are handled one at a time for now."""

    @abstractmethod
    async def read(self, max_items: int, max_bytes: int) -> list[Message]:
        """Return the next messages in order, each once; none after a wait of a few seconds without any.

        A new owner begins with the first unsettled message.

        Args:
            max_items: The most to return.
            max_bytes: About how many bytes to stop at; one message is always returned whole.
        """

    @abstractmethod
    async def attempts(self, message: Message) -> int:
        """Return how many attempts at ``message``, recorded while ``isolated``, ended in a crash."""

    @abstractmethod
    async def begin(self, message: Message) -> bool:
        """Record, while ``isolated``, an attempt at ``message``: from now on a crash counts against it.

        Recorded again by the same owner, before it has ended or was certainly withdrawn, it is the same
        attempt.

        Returns:
            Whether it is one of the first ``MAX_ATTEMPTS`` that stand. If not, too many workers crashed with
            the operation, and it is dead-lettered; this attempt is recorded all the same.
        """

    @abstractmethod
    async def withdraw(self, message: Message) -> None:
        """Take back the attempt that this owner recorded last: nothing handles ``message`` for now.

        Attempts that earlier owners recorded stand. Without an attempt of this owner's it does nothing.

        Raises:
            BrokerError: It is not known whether that was done. The partition's next owner takes it back if it
                finds that this one did not crash.
        """

    @abstractmethod
    async def settle(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Remove messages from the broker; return those that were refused because the partition is lost."""

    @abstractmethod
    async def dead_letter(self, dead: Sequence[tuple[Message, bytes]]) -> Sequence[Message]:
        """Store a dead letter for each message, then remove the message; return those that were refused.

        Repeated after a ``BrokerError``, it may store one twice, and loses none.
        """

    @abstractmethod
    async def release(self) -> None:
        """Release the partition, from now on not ``held``: the next owner begins with what is unsettled.

        Never raises ``BrokerError``: a lease that cannot be released runs out. Called again it does what is
        left to do, also after it was cancelled or the partition was lost.
        """


class ConsumingEnd(End):
    """Where a worker's deliveries come from."""

    @abstractmethod
    async def partitions(self) -> int:
        """As ``PublishingEnd.partitions``; logs settings of the broker under which operations can be lost."""

    @abstractmethod
    async def fleet(self) -> Fleet:
        """Join the fleet, or stay in it, and return it. Called every second or so."""

    @abstractmethod
    async def stand_aside(self) -> None:
        """Leave the fleet, and be counted among the workers whose token the API refuses.

        Called every second or so for as long as that lasts; what was owned is released before. ``fleet``
        joins again.
        """

    @abstractmethod
    async def standing_aside(self) -> int:
        """Return how many workers stand aside. Changes nothing, and joins no fleet."""

    async def answer(self, address: str, answers: Sequence[bytes]) -> None:
        """Tell the command that replayed operations what became of them; the default cannot.

        Args:
            address: What ``DeadLetterEnd.open_answers`` returned in another process. It comes out of an
                operation, which anybody may have written.
            answers: A small JSON object for each operation. Dropped where nobody waits for them any more.
        """

    @abstractmethod
    async def acquire(self, partition: int, max_items: int) -> Partition | None:
        """Become the owner of a partition, unless somebody else is.

        Args:
            partition: Which one.
            max_items: About how many messages the caller will have unsettled at a time.
        """

    @abstractmethod
    async def backlog(self) -> int:
        """Return how many operations are unsettled in all partitions, as far as the broker can count them."""

    @abstractmethod
    async def states(self) -> list[PartitionState]:
        """Return every partition's state. Changes nothing, and joins no fleet."""


class DeadLetterEnd(End):
    """Where dead letters are kept. What was read stays there until it is removed."""

    @abstractmethod
    def read(self) -> AsyncIterator[DeadLetterMessage]:
        """Yield every dead letter, the oldest of each partition first, without holding all of them in memory.

        Reading changes nothing for other readers: they see every one too, now or, where the broker can serve
        only one reader at a time, once this end is disconnected.
        """

    @abstractmethod
    async def count(self) -> int:
        """Return how many there are, without reading them."""

    @abstractmethod
    async def remove(self, dead: Sequence[DeadLetterMessage]) -> None:
        """Remove dead letters that ``read`` yielded."""

    async def open_answers(self) -> str | None:
        """Return an address at which ``ConsumingEnd.answer`` reaches this end until it is disconnected.

        The default returns ``None``: this transport has no way back.
        """
        return None

    async def answers(self) -> list[bytes]:
        """Return the answers that have arrived, each once; none after about a second without any."""
        return []


class Broker(ABC):
    """A broker at a URL. Making one connects nothing.

    Attributes:
        name: What logs call it: scheme, host and prefix; never user or password.
    """

    name: str

    @abstractmethod
    def publishing(self) -> PublishingEnd:
        """Return a new end to publish through."""

    @abstractmethod
    def consuming(self) -> ConsumingEnd:
        """Return a new end to consume through."""

    @abstractmethod
    def dead_letters(self) -> DeadLetterEnd:
        """Return a new end to look after dead letters through."""

    @abstractmethod
    async def check(self) -> list[str]:
        """Connect, and return what is wrong with the broker's settings, in plain words. Changes nothing.

        That is everything that can lose or hold up operations: eviction, persistence, permissions, version.

        Raises:
            BrokerError: It cannot be reached; the message says what to do.
        """

    @abstractmethod
    async def clear(self) -> None:
        """Delete everything under the prefix: operations, dead letters, leases, the record of the partitions.

        For a prefix that nobody uses any more; what is lost is lost.
        """
