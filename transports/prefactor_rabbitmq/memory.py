"""What a process remembers of partitions and messages beyond one ownership."""

import hashlib
import time
from collections import OrderedDict
from typing import Final

from aiormq.abc import DeliveredMessage

POISON_AFTER: Final = 3
"""Returns of a message, not known to be harmless, from which on it is handled alone."""
_REMEMBERED: Final = 50_000
_USUAL_BYTES: Final = 4 * 1024 * 1024


class Memory:
    """Kept by a consuming end; bounded.

    The broker counts how often it took a message back. Only those of a crash mean anything, so the others are
    kept here and subtracted: those that this process has survived, and those that earlier owners tell of.
    """

    def __init__(self) -> None:
        self.read_bytes = _USUAL_BYTES
        """What a read has asked for: what a partition goes by until it is read itself."""
        self._survived = _Counter()
        self._stamp = 0

    def stamp(self) -> int:
        """Return the time in nanoseconds since the Unix epoch, later than any before."""
        self._stamp = max(self._stamp + 1, time.time_ns())
        return self._stamp

    def survive(self, fingerprint: str) -> None:
        """Note that a message goes back to the broker without a crash of this process."""
        self._survived.add(fingerprint)

    def survived(self, fingerprint: str) -> int:
        """Return how many returns of a message are known to be without a crash."""
        return self._survived.get(fingerprint)

    def learn(self, fingerprint: str, survived: int) -> None:
        """Hear how many returns of a message, all in all, were without a crash."""
        self._survived.raise_to(fingerprint, survived)

    def may_be_poison(self, fingerprint: str, returns: int) -> bool:
        """Return whether a message that came back so often may be what crashes its owners."""
        return returns - self._survived.get(fingerprint) >= POISON_AFTER

    def forget(self, fingerprint: str) -> None:
        """Forget a message that is gone from the broker."""
        self._survived.pop(fingerprint)


class _Counter:
    """Counts by key; the keys that were not touched for longest make room."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, int] = OrderedDict()

    def get(self, key: str) -> int:
        return self._counts.get(key, 0)

    def add(self, key: str) -> None:
        self.raise_to(key, self.get(key) + 1)

    def raise_to(self, key: str, count: int) -> None:
        self._counts[key] = max(self._counts.pop(key, 0), count)
        if len(self._counts) > _REMEMBERED:
            self._counts.popitem(last=False)

    def pop(self, key: str) -> None:
        self._counts.pop(key, None)


def fingerprint(message: DeliveredMessage) -> str:
    """Return what one message is known by: its id, which is another for each attempt to publish."""
    name = message.header.properties.message_id
    source = name.encode() if name else message.body
    return hashlib.blake2b(source, digest_size=12).hexdigest()
