"""What a broker has to provide for ``BrokerQueue`` to make a ``Queue`` of it.

A ``Broker`` opens three ends, each with connections of its own: one that publishes (agents), one that
consumes (workers), one that looks after dead letters (operators). The shared code above them keeps buffers,
batches, order, fair shares, read-ahead and accounts; what is below is the broker's own way of keeping one
owner a partition.

Every failure of the driver or the network leaves a method as ``BrokerError``. Every method bounds its waits.
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
    """One operation as a broker holds it.

    Attributes:
        data: The envelope, as bytes.
        receipt: What the broker settles it by; its driver's own.
        redelivered: Whether somebody may have handled it before.
    """

    data: bytes
    receipt: object
    redelivered: bool = False


@dataclass(frozen=True, slots=True)
class DeadLetterMessage:
    """One record of the dead letters, as a broker holds it.

    Attributes:
        data: The record, as bytes.
        partition: The partition that the operation came from.
        receipt: What the broker removes it by; its driver's own.
    """

    data: bytes
    partition: int
    receipt: object


@dataclass(frozen=True, slots=True)
class Fleet:
    """The consumers that share the partitions, this one included.

    Attributes:
        size: How many there are; at least 1.
        rank: This one's place among them, from 0, where the broker can tell.
    """

    size: int
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class PartitionState:
    """What an operator sees of a partition.

    Attributes:
        number: Which one.
        waiting: Operations in it that are not settled; where the broker cannot count what is handed out,
            those that are not.
        dead: Dead letters that came from it, where the broker keeps them apart.
        owner: Name of its owner, ``None`` if it has none, empty if the broker cannot tell who.
        oldest: Seconds since the Unix epoch at which its oldest unsettled operation was published, where the
            broker can tell.
    """

    number: int
    waiting: int
    dead: int | None
    owner: str | None
    oldest: float | None = None


class End(ABC):
    """One end of a broker: some connections, made when they are first needed."""

    @abstractmethod
    async def disconnect(self) -> None:
        """Let go of all connections, within a few seconds. Never raises ``BrokerError``."""


class PublishingEnd(End):
    """Where an agent's operations go."""

    @abstractmethod
    async def partitions(self) -> int:
        """Return the number of partitions: the recorded one, or the wanted one, recorded by this call.

        Raises:
            BrokerError: The broker is unavailable, or refuses.
        """

    @abstractmethod
    async def publish(self, partition: int, batch: Sequence[bytes]) -> None:
        """Publish envelopes to a partition, in order, and wait until the broker has confirmed all of them.

        The caller has at most one batch of a partition under way, and after a failure sends it again from
        the first envelope that was not confirmed.

        Raises:
            BrokerError: Not all are confirmed; its ``confirmed`` says how many at the head are.
        """


@dataclass(frozen=True, slots=True)
class Loss:
    """Why a partition was lost.

    Attributes:
        reason: In words. Losses with the same words are logged together, so it names no partition.
        serious: Whether operations may be gone with it.
    """

    reason: str
    serious: bool = False


class Partition(ABC):
    """A partition that this process owns. All calls but ``read`` may overlap.

    Attributes:
        number: Which one.
    """

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
        """Whether earlier owners crashed here, so that one operation at a time is to be handled for now."""

    @abstractmethod
    async def read(self, max_items: int, max_bytes: int) -> list[Message]:
        """Return the next messages in order, each once; none after a wait of a few seconds without any.

        A new owner begins with the first unsettled message.

        Args:
            max_items: The most to return.
            max_bytes: About how many bytes to stop at; one message is always returned whole.

        Raises:
            BrokerError: The broker is unavailable, or the partition is lost (``held`` is false then).
        """

    @abstractmethod
    async def attempts(self, message: Message) -> int:
        """Return how often, while ``isolated``, ``message`` was begun without an end by owners that crashed.

        Raises:
            BrokerError: It could not be asked.
        """

    @abstractmethod
    async def begin(self, message: Message) -> bool:
        """Record, while ``isolated``, an attempt at ``message``: from now on a crash is held against it.

        Begun again by the same owner, without an end or a withdrawal that is sure, it is the same attempt.

        Returns:
            Whether it is one of the first ``MAX_ATTEMPTS`` that stand. If not, the operation has been begun
            too often without an end, and is to be dead-lettered; this attempt is recorded all the same.

        Raises:
            BrokerError: It could not be recorded.
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
        """Remove messages from the broker, and return those that were refused because the partition is lost.

        Raises:
            BrokerError: It is not known whether that was done. Repeating it is harmless.
        """

    @abstractmethod
    async def dead_letter(self, letters: Sequence[tuple[Message, bytes]]) -> Sequence[Message]:
        """Store a record for each message, then remove the message; return those that were refused.

        Raises:
            BrokerError: It is not known whether that was done. Repeating it may store a record twice, and
                loses none.
        """

    @abstractmethod
    async def release(self) -> None:
        """Give the partition up, from now on not ``held``: the next owner begins with what is unsettled.

        Never raises ``BrokerError``: what cannot be told runs out by itself. Called again it does what is
        left to do, also after it was cancelled or the partition was lost.
        """


class ConsumingEnd(End):
    """Where a worker's deliveries come from."""

    @abstractmethod
    async def partitions(self) -> int:
        """As ``PublishingEnd.partitions``; logs settings of the broker under which operations can be lost.

        Raises:
            BrokerError: The broker is unavailable, or refuses.
        """

    @abstractmethod
    async def fleet(self) -> Fleet:
        """Join the fleet, or stay in it, and return it. Called every second or so.

        Raises:
            BrokerError: The broker is unavailable.
        """

    @abstractmethod
    async def stand_aside(self) -> None:
        """Leave the fleet, and be counted among the workers whose token the API refuses.

        Called every second or so for as long as that lasts; what is owned was given up before. ``fleet``
        joins again.

        Raises:
            BrokerError: The broker is unavailable.
        """

    @abstractmethod
    async def standing_aside(self) -> int:
        """Return how many workers stand aside. Changes nothing, and joins no fleet.

        Raises:
            BrokerError: The broker is unavailable.
        """

    async def answer(self, address: str, answers: Sequence[bytes]) -> None:
        """Tell the command that replayed operations what became of them; the default cannot.

        Args:
            address: What ``DeadLetterEnd.open_answers`` returned, in another process. Whatever it holds may
                have been written by anybody.
            answers: A small JSON object for each operation. Dropped where nobody waits for them any more.

        Raises:
            BrokerError: They may not have arrived.
        """

    @abstractmethod
    async def acquire(self, partition: int, max_items: int) -> Partition | None:
        """Become the owner of a partition, unless somebody else is.

        Args:
            partition: Which one.
            max_items: About how many messages the caller will have unsettled at a time.

        Raises:
            BrokerError: The broker is unavailable, or refuses.
        """

    @abstractmethod
    async def waiting(self) -> int:
        """Return how many operations are unsettled in all partitions, as far as the broker can count them.

        Raises:
            BrokerError: The broker is unavailable.
        """

    @abstractmethod
    async def states(self) -> list[PartitionState]:
        """Return every partition's state. Changes nothing, and joins no fleet.

        Raises:
            BrokerError: The broker is unavailable.
        """


class DeadLetterEnd(End):
    """Where dead letters are kept. What was read stays there until it is removed."""

    @abstractmethod
    def read(self) -> AsyncIterator[DeadLetterMessage]:
        """Yield every record, the oldest of each partition first, without holding all of them in memory.

        Reading changes nothing for other readers: they see every record too, now or, where the broker can
        serve only one reader at a time, once this end is disconnected.

        Raises:
            BrokerError: The broker is unavailable.
        """

    @abstractmethod
    async def count(self) -> int:
        """Return how many records there are, without reading them.

        Raises:
            BrokerError: The broker is unavailable.
        """

    @abstractmethod
    async def remove(self, letters: Sequence[DeadLetterMessage]) -> None:
        """Remove records that ``read`` yielded.

        Raises:
            BrokerError: It is not known whether that was done.
        """

    async def open_answers(self) -> str | None:
        """Return an address at which ``ConsumingEnd.answer`` reaches this end until it is disconnected.

        The default returns ``None``: this transport has no way back.

        Raises:
            BrokerError: The broker is unavailable.
        """
        return None

    async def answers(self) -> list[bytes]:
        """Return the answers that have arrived, each once; none after a wait of about a second without any.

        Raises:
            BrokerError: The broker is unavailable.
        """
        return []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.disconnect()


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

        Raises:
            BrokerError: The broker is unavailable, or refuses.
        """
