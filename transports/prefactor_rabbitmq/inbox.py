"""What the broker has handed to an owner of a partition and is unsettled; what is known of its returns."""

import hashlib
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from aiormq.abc import DeliveredMessage

from prefactor_core.transport import Message

PREFETCH: Final = 500
"""Messages that every owner of a partition has at a time: the same number, always and everywhere.

A quorum queue keeps what came back apart from the rest, hands it out first, and puts what comes back again at
the end of it. An owner that takes less than came back from the one before would put it out of order.
"""
POISON_AFTER: Final = 3
"""Returns of a message, not known to be harmless, from which on it is handled alone."""
_REMEMBERED: Final = 50_000
_USUAL_BYTES: Final = 4 * 1024 * 1024


class Memory:
    """What a process remembers beyond one ownership. Kept by a consuming end; bounded.

    The broker counts how often it took a message back. Only those of a crash mean anything, so the others are
    kept here and subtracted: those that this process has survived, and those that earlier owners tell of.
    """

    def __init__(self) -> None:
        self.read_bytes = _USUAL_BYTES
        """What a read has asked for: what a partition goes by until it is read itself."""
        self._survived: dict[str, int] = {}  # what was touched last at the end
        self._stamp = 0

    def stamp(self) -> int:
        """Return the time in nanoseconds since the Unix epoch, later than any before."""
        self._stamp = max(self._stamp + 1, time.time_ns())
        return self._stamp

    def survived(self, fingerprint: str) -> int:
        """Return how many returns of a message are known to be without a crash."""
        return self._survived.get(fingerprint, 0)

    def survive(self, fingerprint: str) -> None:
        """Note that a message goes back to the broker without a crash of this process."""
        self.learn(fingerprint, self.survived(fingerprint) + 1)

    def learn(self, fingerprint: str, survived: int) -> None:
        """Hear how many returns of a message, all in all, were without a crash."""
        self._survived[fingerprint] = max(self._survived.pop(fingerprint, 0), survived)
        if len(self._survived) > _REMEMBERED:
            del self._survived[next(iter(self._survived))]

    def may_be_poison(self, fingerprint: str, returns: int) -> bool:
        """Return whether a message that came back so often may be what crashes its owners."""
        return returns - self.survived(fingerprint) >= POISON_AFTER

    def forget(self, fingerprint: str) -> None:
        """Forget a message that is gone from the broker."""
        self._survived.pop(fingerprint, None)


@dataclass(slots=True, eq=False)
class Receipt:
    """What a message is settled by."""

    inbox: "Inbox"
    """The inbox that it came through; it cannot be settled through another."""
    tag: int
    """The broker's number for it on this channel."""
    fingerprint: str
    """What it is known by on every channel."""
    size: int
    returns: int
    """How often the broker has taken it back."""
    returned: bool
    """Whether it was with an owner before; not each broker counts all of those times."""
    may_be_poison: bool
    """Whether it may be what crashes its owners; taken back if more is known of its returns."""
    arrived: float
    """When it came, by the steady clock."""


class Inbox:
    """Deliveries of one channel, in order."""

    def __init__(self, memory: Memory) -> None:
        self.bytes = 0
        self.possible_poison = 0
        """Possible poison operations that are unsettled."""
        self.returned = 0
        """Unsettled messages that an owner had before."""
        self._memory = memory
        self._ready: deque[Message] = deque()
        self._unsettled: dict[int, Receipt] = {}  # in the order of tags, which is that of delivery
        self._shed: dict[str, int] = {}  # how often each had come back

    def __len__(self) -> int:
        return len(self._unsettled) + len(self._shed)

    @property
    def returns(self) -> dict[str, int]:
        """How often everything unsettled had come back, by what it is known by, in its order."""
        return {receipt.fingerprint: receipt.returns for receipt in self._unsettled.values()} | self._shed

    @property
    def oldest(self) -> float | None:
        """When the oldest unsettled message came."""
        return next((receipt.arrived for receipt in self._unsettled.values()), None)

    @property
    def exhausted(self) -> bool:
        """Whether only messages are left whose data was shed."""
        return bool(self._shed) and not self._unsettled

    def add(self, message: DeliveredMessage, now: float, max_bytes: int) -> None:
        """Take a delivery. From the first that is too much to hold on, data is shed: the broker has it."""
        size = len(message.body)
        if self._shed or (self._unsettled and self.bytes + size > max_bytes):
            self.shed(message)
            return
        name, returns, returned = _history(message)
        may_be_poison = self._memory.may_be_poison(name, returns)
        receipt = Receipt(self, message.delivery_tag or 0, name, size, returns, returned, may_be_poison, now)
        self._unsettled[receipt.tag] = receipt
        self.bytes += size
        self.possible_poison += may_be_poison
        self.returned += returned
        self._ready.append(Message(message.body, receipt, returned))

    def shed(self, message: DeliveredMessage) -> str:
        """Take no more of a delivery than what it is known by, and return that."""
        name, returns, returned = _history(message)
        self._shed[name] = returns
        self.returned += returned
        return name

    def reconsider(self) -> None:
        """Clear messages that more is known of now."""
        for receipt in self._unsettled.values():
            if receipt.may_be_poison and not self._memory.may_be_poison(receipt.fingerprint, receipt.returns):
                receipt.may_be_poison = False
                self.possible_poison -= 1

    def ends_returned(self, receipts: Iterable[Receipt]) -> bool:
        """Return whether, once these are settled, nothing is left here that an owner had before."""
        if not self.returned:
            return False
        tags = {receipt.tag for receipt in receipts if receipt.returned}
        return len(tags & self._unsettled.keys()) == self.returned

    @property
    def available(self) -> bool:
        """Whether there is something to take: what may be poison is taken while nothing else is handled."""
        return bool(self._ready) and (not self.possible_poison or len(self._ready) == len(self._unsettled))

    def take(self, max_items: int, max_bytes: int) -> list[Message]:
        """Return the next messages, the first one whole; only one where something may be poison."""
        taken: list[Message] = []
        size = 0
        while self.available and len(taken) < max_items:
            size += len(self._ready[0].data)
            if taken and (size > max_bytes or self.possible_poison):
                break
            taken.append(self._ready.popleft())
        return taken

    def settle(self, receipts: Iterable[Receipt]) -> list[tuple[int, bool]]:
        """Forget messages, and return what to acknowledge: tags, and whether all below are meant too.

        "All below" is said only where everything below is settled, now or before.
        """
        tags: list[int] = []
        for receipt in receipts:
            if self._unsettled.pop(receipt.tag, None) is not None:
                self.bytes -= receipt.size
                self.possible_poison -= receipt.may_be_poison
                self.returned -= receipt.returned
                tags.append(receipt.tag)
        tags.sort()
        first_left = next(iter(self._unsettled), None)
        covered = [tag for tag in tags if first_left is None or tag < first_left]
        single = [(tag, False) for tag in tags[len(covered) :]]
        return [(covered[-1], True), *single] if covered else single


def _history(message: DeliveredMessage) -> tuple[str, int, bool]:
    """Return what a message is known by, how often it came back, and whether an owner had it before."""
    count = (message.header.properties.headers or {}).get("x-delivery-count")
    returns = count if isinstance(count, int) else 0
    return fingerprint(message), returns, bool(message.redelivered) or returns > 0


def fingerprint(message: DeliveredMessage) -> str:
    """Return what one message is known by: its id, which is another for each attempt to publish."""
    name = message.header.properties.message_id
    source = name.encode() if name else message.body
    return hashlib.blake2b(source, digest_size=12).hexdigest()
