"""Packing: how much goes into one request, and what has to travel in one of its own.

Bulk requests of full size are the rule. What an API, or a proxy before it, refuses is remembered for a while:
requests of that size, bulk at all, or one operation's part in it.
"""

import asyncio
import logging
import math
from dataclasses import replace
from typing import Final

from prefactor_core.api.replies import Reply
from prefactor_core.api.wire import MAX_BULK_BYTES, WireOperation
from prefactor_core.execution.handler import BatchLimits

logger = logging.getLogger("prefactor_core.api")

BULK_LIMITS: Final = BatchLimits(max_items=250, max_bytes=1024 * 1024, max_lanes=250)
"""What goes into one bulk request. The API takes more; but encoding a request holds the event loop that the
agent works on, and this much takes it about a millisecond."""

SINGLE_LIMITS: Final = BatchLimits(max_items=20, max_bytes=1024 * 1024, max_lanes=1)
"""Without bulk, a call sends so many operations of one lane one after the other."""

_REMEMBERED: Final = 60.0
"""Seconds until what was refused is sent again. It may have been a proxy."""

_KEYS_KEPT: Final = 10_000
"""Keys remembered at most of operations that travel alone."""


class Packing:
    """What has been learnt about the requests that get through."""

    def __init__(self, limits: BatchLimits = BULK_LIMITS) -> None:
        self._usual_limits = limits
        self._no_bulk_until = -math.inf
        self._small_limits = limits
        self._small_until = -math.inf
        self._singly: set[str] = set()
        self._said: set[str] = set()

    @property
    def limits(self) -> BatchLimits:
        """How much one call may be given now."""
        if not self.bulk_works:
            return SINGLE_LIMITS
        return self._small_limits if _now() < self._small_until else self._usual_limits

    @property
    def bulk_works(self) -> bool:
        """Whether bulk requests are taken, as far as is known."""
        return _now() >= self._no_bulk_until

    def no_bulk(self, reply: Reply) -> None:
        """Note that bulk requests are not accepted; single ones are sent for a while."""
        self._say("the API does not accept bulk requests (%s); operations are sent one by one", reply)
        self._no_bulk_until = _now() + _REMEMBERED

    def too_large(self, items: list[bytes], reply: Reply) -> None:
        """Note that a bulk request of several items, or its reply, was too large: send less for a while."""
        size = sum(len(item) for item in items)
        self._say(
            "a bulk request of %d operations and %d bytes was too large (%s): sending smaller ones",
            len(items),
            size,
            reply,
        )
        self._small_limits = replace(
            self._usual_limits, max_items=len(items) // 2, max_bytes=max(1, size // 2)
        )
        self._small_until = _now() + _REMEMBERED

    def passed(self) -> None:
        """Note that a bulk request got through. If it could be of any size, what was in the way is over."""
        if self.limits is self._usual_limits:
            self._said.clear()

    def travels_alone(self, key: str) -> bool:
        """Whether the operation of that key has to have a request of its own."""
        return key in self._singly

    def set_alone(self, key: str) -> None:
        """Have the operation of that key travel alone: a bulk reply could not speak for it."""
        if len(self._singly) >= _KEYS_KEPT:
            self._singly.clear()  # most are dead-lettered by now; the others are sent in bulk once more
        self._singly.add(key)

    def forget(self, key: str) -> None:
        """Forget that the operation of that key had to travel alone: it has been answered."""
        self._singly.discard(key)

    def _say(self, message: str, *details: object) -> None:
        """Say something once, until bulk requests of any size get through again."""
        if message not in self._said:
            self._said.add(message)
            logger.warning(message, *details)


def pack(wires: list[WireOperation]) -> list[bytes]:
    """Return the items of the longest prefix that one bulk request can hold, each key once."""
    items: list[bytes] = []
    keys: set[str] = set()
    size = 64
    for wire in wires:
        item = wire.bulk_item()
        size += len(item) + 1
        if items and (wire.key in keys or size > MAX_BULK_BYTES):
            break
        keys.add(wire.key)
        items.append(item)
    return items


def _now() -> float:
    return asyncio.get_running_loop().time()
