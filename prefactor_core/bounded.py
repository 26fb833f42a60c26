"""Memory with a bound: what is remembered last pushes out what was remembered first."""

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def remember(kept: dict[K, V], key: K, value: V, most: int) -> None:
    """Put ``value`` under ``key``, and forget the oldest key where there are more than ``most``."""
    kept[key] = value
    if len(kept) > most:
        del kept[next(iter(kept))]
