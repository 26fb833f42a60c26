"""What has a bound: what is remembered, and how often a warning is logged."""

from collections.abc import Hashable
from typing import Final, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_KINDS_KEPT: Final = 1_000


def remember(kept: dict[K, V], key: K, value: V, most: int) -> None:
    """Put ``value`` under ``key``, and forget the oldest key where there are more than ``most``."""
    kept[key] = value
    if len(kept) > most:
        del kept[next(iter(kept))]


class Throttle:
    """Lets a warning be logged once in an interval of seconds, each kind of warning by itself."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._next: dict[Hashable, float] = {}

    def allows(self, now: float, kind: Hashable = None) -> bool:
        """Whether a warning is due now, in monotonic seconds; if so, it counts as logged."""
        if self._next.get(kind, now) > now:
            return False
        if len(self._next) >= _KINDS_KEPT:
            self._next.clear()
        self._next[kind] = now + self._interval
        return True
