"""PFIDs: the ids of agents, instances and spans.

A PFID is 160 bits: two zero bits, 48 of Unix milliseconds, 30 of partition, 80 random ones; written
as 32 lower-case Crockford base32 characters. The client chooses the ids of instances and spans, so
that a child can name its parent before either has reached the API.
"""

import base64
import os
import re
import time
from collections.abc import Callable
from typing import Final

from prefactor_core.exceptions import InvalidIdentifierError

_PFID: Final = re.compile(r"[0-7][0-9a-hjkmnp-tv-z]{31}")
_RFC4648: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_CROCKFORD: Final = b"0123456789abcdefghjkmnpqrstvwxyz"
_TO_CROCKFORD: Final = bytes.maketrans(_RFC4648, _CROCKFORD)
_FROM_CROCKFORD: Final = bytes.maketrans(_CROCKFORD, _RFC4648)
PARTITION_BITS: Final = (1 << 30) - 1
"""The bits of a partition."""


def is_pfid(value: object) -> bool:
    """Whether ``value`` is a well-formed PFID."""
    return isinstance(value, str) and _PFID.fullmatch(value) is not None


def require_pfid(value: object, field: str) -> str:
    """Return ``value`` if it is a PFID.

    Raises:
        InvalidIdentifierError: It is not; the message names ``field``.
    """
    if isinstance(value, str) and _PFID.fullmatch(value) is not None:
        return value
    shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."
    raise InvalidIdentifierError(
        field, f"{shown} is not an id: expected a PFID, 32 characters of Crockford base32"
    )


class PfidFactory:
    """Makes new PFIDs.

    Args:
        now_ms: Unix time in milliseconds.
        random_bytes: Returns that many random bytes. The default asks the operating system, so that
            ids differ in forked processes too.
    """

    __slots__ = ("_now_ms", "_random_bytes")

    def __init__(
        self,
        now_ms: Callable[[], int] | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._now_ms = now_ms if now_ms is not None else _wall_clock_ms
        self._random_bytes = random_bytes

    def new(self) -> str:
        """Return a PFID of a random partition."""
        random = self._random_bytes(14)
        return self._encode(int.from_bytes(random[:4], "big") & PARTITION_BITS, random[4:])

    def related(self, pfid: str) -> str:
        """Return a PFID of the same partition as ``pfid``, which must be well formed."""
        return self._encode(partition_of(pfid), self._random_bytes(10))

    def _encode(self, partition: int, random: bytes) -> str:
        # Two zero bits, 48 of time, 30 of partition, 80 random ones: 160.
        head = (self._now_ms() << 30 | partition).to_bytes(10, "big")
        return base64.b32encode(head + random).translate(_TO_CROCKFORD).decode("ascii")


def partition_of(pfid: str) -> int:
    """Return the partition of a well-formed PFID."""
    # It ends with the 80th bit, which is the 16th character's last.
    head = base64.b32decode(pfid[:16].encode().translate(_FROM_CROCKFORD))
    return int.from_bytes(head[6:], "big") & PARTITION_BITS


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000
