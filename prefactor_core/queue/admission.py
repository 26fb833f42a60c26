"""What a bounded buffer takes, and what it drops when it is full: whole chains of dependents.

What opens something (a registration, a span's create) is taken only while there is room for what will
close it, so that the finish of whatever was accepted still fits into a full buffer.
"""

import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

from prefactor_core.bounded import Throttle
from prefactor_core.execution.dependents import Dependents
from prefactor_core.operations import Operation, OperationType

logger = logging.getLogger("prefactor_core.queue")

_WARNING_INTERVAL: Final = 30.0
"""Seconds between two warnings about drops."""

_CLOSERS: Final = frozenset(
    {
        OperationType.START_AGENT_INSTANCE,
        OperationType.FINISH_AGENT_INSTANCE,
        OperationType.FINISH_SPAN,
    }
)


class Admission:
    """Decides, for one buffer, what fits.

    The room kept for closing operations is at most half of the count and an eighth of the bytes: spans
    that are never finished must not fill the buffer with reservations.

    Args:
        max_items: Items unsettled at most.
        max_bytes: Bytes unsettled at most.
        monotonic: Clock for the interval between warnings, in seconds.
    """

    def __init__(self, max_items: int, max_bytes: int, monotonic: Callable[[], float]) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._monotonic = monotonic
        self._dependents = Dependents()
        self._open: dict[str, set[str]] = {}  # instance -> its accepted spans without a finish
        self._reserved = 0
        self._throttle = Throttle(_WARNING_INTERVAL)
        self.dropped: Counter[str] = Counter()
        """How many items were dropped, by operation type (``item`` for what is no operation)."""

    def admit(self, item: object, size: int, held_items: int, held_bytes: int) -> bool:
        """Return whether ``item`` is taken; if not, it is counted here and its dependents follow.

        Args:
            item: What is to be put.
            size: About how many bytes it takes.
            held_items: Items unsettled now.
            held_bytes: Bytes unsettled now.
        """
        reason = self._dependents.reason(item) if self._dependents else None
        if reason is None and self._fits(item, size, held_items, held_bytes):
            self._note(item)
            return True
        self._dependents.lose(item, reason or "the buffer was full")
        self._forget(item)
        self.dropped[item.type.value if isinstance(item, Operation) else "item"] += 1
        if self._throttle.allows(self._monotonic()):
            logger.warning(
                "the buffer is full (%d operations, %d bytes): %d dropped so far, with what depends on them",
                self._max_items,
                self._max_bytes,
                self.dropped.total(),
            )
        return False

    def _fits(self, item: object, size: int, held_items: int, held_bytes: int) -> bool:
        if isinstance(item, Operation) and item.type in _CLOSERS:
            return held_items < self._max_items and held_bytes + size <= self._max_bytes
        opens = 1
        if isinstance(item, Operation):
            if item.type is OperationType.CREATE_SPAN:
                opens = 2  # itself and its finish
            elif item.type is OperationType.REGISTER_AGENT_INSTANCE:
                opens = 3  # itself, its start and its finish
        kept = min(self._reserved, self._max_items // 2)
        return (
            held_items + kept + opens <= self._max_items
            and held_bytes + size <= self._max_bytes - self._max_bytes // 8
        )

    def _note(self, item: object) -> None:
        """Keep room for what will close ``item``, or give back the room that it closes."""
        instance_id = item.instance_id if isinstance(item, Operation) else None
        if not isinstance(item, Operation) or instance_id is None:
            return
        if item.type is OperationType.CREATE_SPAN:
            span_id = item.span_id
            if span_id is not None and item.payload.get("finished_at") is None:
                self._keep_room(instance_id, span_id)
        elif item.type is OperationType.FINISH_SPAN:
            span_id = item.span_id
            if span_id is not None:
                self._release(instance_id, span_id)
        elif item.type is OperationType.REGISTER_AGENT_INSTANCE:
            self._keep_room(instance_id, "start")
            self._keep_room(instance_id, "finish")
        elif item.type is OperationType.START_AGENT_INSTANCE:
            self._release(instance_id, "start")
        elif item.type is OperationType.FINISH_AGENT_INSTANCE:
            self._forget(item)

    def _keep_room(self, instance_id: str, closing: str) -> None:
        if self._reserved < self._max_items:  # more is never kept, and not worth remembering
            closings = self._open.setdefault(instance_id, set())
            self._reserved += closing not in closings
            closings.add(closing)

    def _release(self, instance_id: str, closing: str) -> None:
        spans = self._open.get(instance_id)
        if spans is not None and closing in spans:
            spans.remove(closing)
            self._reserved -= 1
            if not spans:
                del self._open[instance_id]

    def _forget(self, item: object) -> None:
        """Give back all the room of an instance that is over, or lost."""
        if (
            isinstance(item, Operation)
            and item.instance_id is not None
            and item.type not in {OperationType.CREATE_SPAN, OperationType.RECORD_QUALITY}
        ):
            if item.type is OperationType.FINISH_SPAN:
                self._release(item.instance_id, item.span_id or "")
                return
            self._reserved -= len(self._open.pop(item.instance_id, ()))
