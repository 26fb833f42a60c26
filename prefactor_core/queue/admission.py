"""What a bounded buffer takes, and what it drops, with its dependents, when it is full.

What opens something (a registration, a span's create) is taken only while there is room for what will
close it, so that the finish of whatever was accepted still fits into a full buffer.
"""

import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

from prefactor_core.bounded import Throttle
from prefactor_core.exclusive import afterwards
from prefactor_core.execution.dependents import Dependents
from prefactor_core.operations import NO_RULES, SPAN, Operation, Rules, Stage, kind_of

logger = logging.getLogger("prefactor_core.queue")

_WARNING_INTERVAL: Final = 30.0
"""Seconds between two warnings about drops."""


class Admission:
    """Decides, for one buffer, what fits.

    The room kept for closing operations is at most half of the count and an eighth of the bytes: spans
    that are never finished must not fill the buffer with reservations.
    """

    def __init__(self, max_items: int, max_bytes: int, monotonic: Callable[[], float]) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._monotonic = monotonic
        self._dependents = Dependents()
        self._open: dict[str, set[str]] = {}  # instance -> what is to be closed: span ids, "start", "finish"
        self._reserved = 0
        self._throttle = Throttle(_WARNING_INTERVAL)
        self.dropped: Counter[str] = Counter()
        """How many items were dropped, by operation type (``item`` for what is no operation)."""

    @property
    def reserved(self) -> int:
        """Items that room is kept for."""
        return min(self._reserved, self._max_items // 2)

    @property
    def has_lost(self) -> bool:
        """Whether anything that was dropped is remembered, which items may depend on."""
        return bool(self._dependents)

    def loses(self, item: object) -> bool:
        """Whether an item follows what was dropped."""
        return self._dependents.reason(item) is not None

    def admit(self, item: object, size: int, held_items: int, held_bytes: int) -> bool:
        """Return whether ``item`` of ``size`` bytes is taken, beside the items and bytes held already.

        If not, it is counted here, and its dependents follow.
        """
        operation = item if isinstance(item, Operation) else None
        rules = NO_RULES if operation is None else operation.type.rules
        reason = self._dependents.reason(item) if self._dependents else None
        if reason is None and self._fits(rules, size, held_items, held_bytes):
            if operation is not None:
                self._note(operation, rules)
            return True
        self._dependents.lose(item, reason or "the buffer was full")
        if operation is not None:
            self._forget(operation)
        self.dropped[kind_of(item)] += 1
        if self._throttle.allows(self._monotonic()):
            afterwards(
                logger.warning,
                "the buffer is full (%d operations, %d bytes): %d operations dropped so far, "
                "dependents included",
                self._max_items,
                self._max_bytes,
                self.dropped.total(),
            )
        return False

    def _fits(self, rules: Rules, size: int, held_items: int, held_bytes: int) -> bool:
        if rules.closes is not None:
            return held_items < self._max_items and held_bytes + size <= self._max_bytes
        return (
            held_items + self.reserved + 1 + len(rules.opens) <= self._max_items
            and held_bytes + size <= self._max_bytes - self._max_bytes // 8
        )

    def _note(self, operation: Operation, rules: Rules) -> None:
        """Keep room for what will close what it opens, or free the room of what it closes."""
        instance_id = operation.instance_id
        if instance_id is None:
            return
        if rules.stage is Stage.END:
            self._forget(operation)
        elif rules.closes is not None:
            self._release(instance_id, operation.span_id if rules.closes == SPAN else rules.closes)
        elif operation.payload.get("finished_at") is None:  # else it is closed already
            for name in rules.opens:
                self._keep_room(instance_id, operation.span_id if name == SPAN else name)

    def _keep_room(self, instance_id: str, closing: str | None) -> None:
        # More than the whole buffer is never kept, and not worth remembering.
        if closing is not None and self._reserved < self._max_items:
            closings = self._open.setdefault(instance_id, set())
            self._reserved += closing not in closings
            closings.add(closing)

    def _release(self, instance_id: str, closing: str | None) -> None:
        closings = self._open.get(instance_id)
        if closings is not None and closing in closings:
            closings.remove(closing)
            self._reserved -= 1
            if not closings:
                del self._open[instance_id]

    def _forget(self, operation: Operation) -> None:
        """Free the room kept for what is lost with an operation, or over with it."""
        instance_id, rules = operation.instance_id, operation.type.rules
        if instance_id is None:
            return
        if rules.closes == SPAN:
            self._release(instance_id, operation.span_id)
        elif rules.stage is not Stage.RUN:
            self._reserved -= len(self._open.pop(instance_id, ()))
