"""The interface that the SDK and the executor share with every queue, in memory or on a broker.

The five methods of the published SDK (``put``, ``get``, ``size``, ``close``, ``closed``) are enough: a
queue that has only those works with the client and the executor. What a broker adds comes with
defaults: deliveries that are settled once their effect is known, dead letters, release, flush and depth.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Generic, Protocol, TypeAlias, TypeVar

from prefactor_core.exceptions import QueueClosedError

__all__ = [
    "Attempt",
    "DeadLetter",
    "Delivery",
    "DirectQueue",
    "Owner",
    "Published",
    "Queue",
    "QueueClosedError",
]

T = TypeVar("T")

_USUAL_SIZE: Final = 256
"""Bytes that an item counts for that does not say."""


def size_of(item: object) -> int:
    """Return how many bytes an item counts for: its ``size``, where it says a sensible one."""
    size = getattr(item, "size", None)  # any item can be queued, and what it calls its size may be anything
    return size if type(size) is int and size > 0 else _USUAL_SIZE


class Owner(Protocol):
    """Who holds a delivery on behalf of this process; it can lose it to another process."""

    @property
    def current(self) -> bool:
        """Whether what it handed out is still this process's to carry out; decided without the network."""
        ...


class Attempt(Protocol):
    """What a queue records while a delivery is handled, so that a crash of its handler is counted.

    It is recorded when the delivery is handed out. Before the delivery has to wait, for a retry or for what
    the handler calls, it is withdrawn; it is begun again before the delivery is handled.
    """

    async def withdraw(self) -> None:
        """Take the record back, if there is one. Never fails: what cannot be told stays recorded."""
        ...

    async def begin(self) -> bool:
        """Record it again, unless it is recorded, and return whether the delivery may be handled now.

        If not, it has to wait a moment: the broker cannot be told, or another delivery has to be alone.
        """
        ...


class Delivery(Generic[T]):
    """One item handed out by a queue, to be settled, dead-lettered or released exactly once.

    Attributes:
        maybe_sent: Whether an earlier attempt may have had its effect. A queue sets it on what it
            delivers again; a sender sets it once a request may have reached the API.
        replayed: Whether an operator has replayed it from the dead letters: what is refused stays one.
        crashes: How often it was begun by owners that crashed, where the queue knows.
        dead_letter: Set where a queue knows that it must not be carried out. The executor dead-letters it
            with this, and its dependents too.
        lane, number: Its place in the executor; the executor's own.
        owner: Who can lose it to another process; ``None`` where nobody can.
        attempt: What is recorded while it is handled; ``None`` where crashes are not counted.
        receipt: What the queue disposes of it by; the queue's own.
    """

    __slots__ = (
        *("attempt", "crashes", "dead_letter", "item", "lane", "maybe_sent", "number", "owner", "receipt"),
        *("replayed", "size"),
    )

    def __init__(self, item: T, *, redelivered: bool = False) -> None:
        self.item = item
        self.size = size_of(item)
        self.maybe_sent = redelivered
        self.replayed = False
        self.crashes = 0
        self.dead_letter: DeadLetter[T] | None = None
        self.lane: object = None
        self.number = 0
        self.owner: Owner | None = None
        self.attempt: Attempt | None = None
        self.receipt: object = None

    @property
    def revoked(self) -> bool:
        """Whether another process owns it by now: it is to be released, not carried out."""
        return self.owner is not None and not self.owner.current


@dataclass(frozen=True, slots=True)
class DeadLetter(Generic[T]):
    """An item that will not be retried.

    Attributes:
        attempts: How often it was sent by itself by the owner that dead-lettered it, the last time included,
            or begun by an isolated owner that crashed. A batch that failed as a whole is none, nor one whose
            reply did not say enough of it, nor is anything while what the handler calls is unavailable or
            throttles. 0 if it was never sent, as a dependent of a lost operation.
        reply: What the API answered, if that was the reason.
    """

    item: T
    reason: str
    attempts: int = 0
    reply: str | None = field(default=None, repr=False)  # it may quote a payload


Observe: TypeAlias = Callable[[Sequence[Any], Sequence[Any], Sequence[DeadLetter[Any]]], None]
"""Told the items that were settled, those that were superseded, and the dead letters."""


@dataclass(frozen=True, slots=True)
class Published:
    """Where everything put to a queue that ends elsewhere is.

    ``put = confirmed + unconfirmed + buffered + dropped``, always. ``unconfirmed`` items were sent without
    an answer, and may have arrived; ``buffered`` ones were never sent; ``dropped`` counts by operation type.
    """

    put: int = 0
    confirmed: int = 0
    unconfirmed: int = 0
    buffered: int = 0
    dropped: dict[str, int] = field(default_factory=dict)


class Queue(ABC, Generic[T]):
    """Where operations wait between the agent and the executor. All calls belong to one event loop.

    A client of one that is no ``DirectQueue`` puts one operation after the other in that loop, in the order
    of its own calls, which wait for their operations to be put.
    """

    local: ClassVar[bool] = True
    """Whether this process empties the queue. A client starts its own executor on a local queue; a
    queue that ends in a broker is emptied by workers elsewhere."""

    in_memory: ClassVar[bool] = False
    """Whether what waits is in this process's memory already, so that receiving all of it costs none."""

    @abstractmethod
    async def put(self, item: T) -> None:
        """Take an item without making the caller wait.

        Raises:
            QueueClosedError: The queue is closed.
        """

    @abstractmethod
    async def get(self) -> T:
        """Remove the next item and return it, waiting for one if there is none.

        Raises:
            QueueClosedError: The queue is closed, and everything in it has been handed out.
        """

    @abstractmethod
    def size(self) -> int:
        """Return how many items wait to be handed out."""

    @abstractmethod
    async def close(self, num_waiters: int = 1) -> None:
        """Take nothing more, and wake the ``num_waiters`` callers that are blocked in ``get``.

        What is in the queue can still be got; what a queue keeps elsewhere stays there for others. Closing
        again does nothing.
        """

    @property
    @abstractmethod
    def closed(self) -> bool:
        """Whether ``close`` was called."""

    @property
    def destination(self) -> str:
        """Where what is put goes, in words for a log; the default names the class."""
        return type(self).__name__

    @property
    def published(self) -> Published | None:
        """Where everything put is, in a queue that ends elsewhere; ``None`` from one that does not know."""
        return None

    @property
    def dropped(self) -> Mapping[str, int]:
        """How many items were dropped for want of room, by operation type. The default drops none."""
        return {}

    async def receive(self, max_items: int, max_bytes: int) -> "list[Delivery[T]]":
        """Return up to ``max_items`` deliveries, or as many as reach ``max_bytes``, waiting for the first.

        The default takes one item at a time with ``get``, which settles it by handing it out.

        Raises:
            QueueClosedError: The queue is closed, and everything in it has been handed out.
        """
        del max_items, max_bytes
        return [Delivery(await self.get())]

    async def settle(self, deliveries: "Sequence[Delivery[T]]") -> "Sequence[Delivery[T]]":
        """Forget deliveries whose effect has happened. The default has nothing to forget.

        Returns:
            Those that were refused, since they are another process's by now and it will settle them.
        """
        del deliveries
        return ()

    async def dead_letter(
        self, dead_letters: "Sequence[tuple[Delivery[T], DeadLetter[T]]]"
    ) -> "Sequence[Delivery[T]]":
        """Dead-letter deliveries, each with its reason: they will not be handed out again.

        The default keeps nothing: override it in a queue whose users will want to look.

        Returns:
            Those that were refused, since they are another process's by now.
        """
        del dead_letters
        return ()

    async def release(self, deliveries: "Sequence[Delivery[T]]") -> None:
        """Take deliveries back unharmed, in their order, to be handed out again.

        The default cannot: with ``get`` alone an item is gone once it is handed out.
        """

    def introduce(self, sdk_header: Callable[[], str]) -> None:
        """Tell the queue who puts into it. Called by a client before its first put.

        ``sdk_header`` returns the SDK header of the moment, for a queue that is emptied elsewhere.
        """

    async def disconnect(self) -> None:
        """Let go of all connections, within a few seconds. Called last, after ``close``.

        What is still waiting to be carried elsewhere is not waited for: ``flush`` does that.
        """

    async def discard(self) -> int:
        """Drop everything that waits, for good, and return how many items that was.

        Called once delivery has failed for good. The default gets what is there and forgets it.
        """
        count = 0
        while self.size() > 0:
            await self.get()
            count += 1
        return count

    async def flush(self, timeout: float) -> bool:
        """Wait until nothing is unsettled here; for a broker, until it has confirmed what was put.

        Returns:
            Whether that came true in ``timeout`` seconds. The default looks at ``size()``.
        """
        del timeout
        return self.size() == 0

    async def depth(self) -> int:
        """Return how many items are unsettled, waiting or handed out, wherever the queue ends."""
        return self.size()


class DirectQueue(Queue[T]):
    """A queue that takes items from any thread, at once and in order.

    A client offers to it; to one of a subclass that overrides ``put`` alone, it puts.
    """

    blocks: bool = False
    """Whether the queue is ever ``overfull``."""

    @abstractmethod
    def offer(self, item: T) -> None:
        """Take an item, as ``put`` does, but never wait: with the policy ``block`` the caller does that next.

        It may be called in any thread, and amid any other call, by a finaliser or a signal handler. Before
        that ``introduce`` was called in the queue's event loop.

        Raises:
            QueueClosedError: The queue is closed.
        """

    @property
    @abstractmethod
    def put_count(self) -> int:
        """How many items were put or offered, dropped ones included. Can be asked for in any thread."""

    @property
    @abstractmethod
    def overfull(self) -> bool:
        """Whether a caller of ``offer`` is to wait for room now."""

    @abstractmethod
    async def room(self) -> None:
        """Wait, in any event loop, until the queue is not ``overfull``, or closed."""

    @abstractmethod
    def block_for_room(self) -> None:
        """Block this thread until the queue is not ``overfull``, or closed."""
