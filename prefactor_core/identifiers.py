"""PFIDs: the ids of agents, instances and spans.

A PFID is 160 bits: two zero bits, 48 of Unix milliseconds, 30 of partition, 80 random ones; written
as 32 lower-case Crockford base32 characters. Ten of them are the time, six the partition and sixteen random:
no part shares a character with another, so ids are put together as text. The client chooses the ids of
instances and spans, so that a child can name its parent before either has reached the API.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Final

from prefactor_core.exceptions import InvalidIdentifierError
from prefactor_core.forks import FORKS

_PFID: Final = re.compile(r"[0-7][0-9a-hjkmnp-tv-z]{31}")
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_DIGITS: Final = bytes(_ALPHABET.encode()[byte & 31] for byte in range(256))
"""The character of each byte: that of its lowest five bits."""
_PARTITION: Final = slice(10, 16)
_RANDOM: Final = 16
"""Random characters of an id."""
_POOLED: Final = 128
"""How many ids' random characters are drawn at once: the system call takes longer than all else."""


def is_pfid(value: object) -> bool:
    """Whether ``value`` is a well-formed PFID."""
    return isinstance(value, str) and _PFID.fullmatch(value) is not None


def require_pfid(value: object, field: str) -> str:
    """Return ``value`` if it is a PFID, else raise an ``InvalidIdentifierError`` that names ``field``."""
    if isinstance(value, str) and _PFID.fullmatch(value) is not None:
        return value
    shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."
    raise InvalidIdentifierError(
        field, f"{shown} is not an id: expected a PFID, 32 characters of Crockford base32"
    )


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class PfidFactory:
    """Makes new PFIDs, in any thread. They differ in forked processes too."""

    __slots__ = ("_forks", "_now_ms", "_pool", "_random_bytes", "_time")

    def __init__(
        self, now_ms: Callable[[], int] = _wall_clock_ms, random_bytes: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._now_ms = now_ms
        self._random_bytes = random_bytes
        self._time = (0, "0" * 10)  # the last one, as a number and as text
        self._forks = FORKS.count
        self._pool: Iterator[str] = iter(())

    def new(self) -> str:
        """Return a PFID of a random partition."""
        partition = self._random_bytes(_PARTITION.stop - _PARTITION.start).translate(_DIGITS).decode("ascii")
        return self._time_now() + partition + self._random()

    def related(self, pfid: str) -> str:
        """Return a PFID of the same partition as ``pfid``, which must be well formed."""
        return self._time_now() + pfid[_PARTITION] + self._random()

    def _random(self) -> str:
        if self._forks == FORKS.count:
            for random in self._pool:  # taking the next is atomic
                return random
        self._forks = FORKS.count
        fresh = self._random_bytes(_POOLED * _RANDOM).translate(_DIGITS).decode("ascii")
        pool = iter([fresh[at : at + _RANDOM] for at in range(0, len(fresh), _RANDOM)])
        first = next(pool)
        self._pool = pool
        return first

    def _time_now(self) -> str:
        now = self._now_ms()
        known, text = self._time  # together: ids may be made in several threads
        if now != known:
            text = "".join(_ALPHABET[now >> shift & 31] for shift in range(45, -1, -5))
            self._time = (now, text)
        return text
