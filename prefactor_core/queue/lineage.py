"""What depends on what: an operation that is lost takes along what makes no sense without it.

Half an instance is worse than none. The rule is used at both ends: by the bounded buffer when it drops,
and by the executor when it dead-letters.
"""

from typing import Final

from prefactor_core.bounded import remember
from prefactor_core.operations import Operation, OperationType

_INSTANCES_KEPT: Final = 10_000
"""Lost instances remembered. Past that the oldest is forgotten: what comes of it later is tried, and refused
by the API, instead of being held back here."""

_SPANS_KEPT: Final = 100_000
"""Lost spans remembered; past that, too, the oldest is forgotten."""

INSTANCE_OPENERS: Final = frozenset(
    {OperationType.REGISTER_AGENT_INSTANCE, OperationType.START_AGENT_INSTANCE}
)


class Lineage:
    """Remembers what was lost, and says what is lost with it.

    That is all of an instance whose registration or start is lost, and the finish and the descendants of a
    span whose create is lost.
    """

    def __init__(self) -> None:
        self._instances: dict[str, tuple[OperationType, str]] = {}
        self._spans: dict[tuple[str, str], str] = {}

    def __bool__(self) -> bool:
        """Whether anything is remembered: the cheap question before ``reason``."""
        return bool(self._instances or self._spans)

    def lose(self, item: object, reason: str) -> None:
        """Remember that ``item`` is lost. Items that are no operations have no dependents."""
        if not isinstance(item, Operation) or item.instance_id is None:
            return
        if item.type in INSTANCE_OPENERS:
            if item.instance_id in self._instances:
                return  # what it follows is what has to be revived
            remember(self._instances, item.instance_id, (item.type, reason), _INSTANCES_KEPT)
        elif item.type is OperationType.CREATE_SPAN and item.span_id is not None:
            remember(self._spans, (item.instance_id, item.span_id), reason, _SPANS_KEPT)

    def revive(self, item: object) -> None:
        """Forget that ``item`` was lost, now that it is to be tried anew (a replay, another owner)."""
        if not isinstance(item, Operation) or item.instance_id is None:
            return
        lost = self._instances.get(item.instance_id)
        if lost is not None and lost[0] is item.type:
            del self._instances[item.instance_id]
        elif item.type is OperationType.CREATE_SPAN:
            self._spans.pop((item.instance_id, item.span_id or ""), None)

    def reason(self, item: object) -> str | None:
        """Return why ``item`` is lost along with something before it, or ``None`` if it is not."""
        if not isinstance(item, Operation) or item.instance_id is None:
            return None
        lost = self._instances.get(item.instance_id)
        if lost is not None:
            return lost[1]
        if item.type is OperationType.FINISH_SPAN:
            span_id = item.span_id
        elif item.type is OperationType.CREATE_SPAN:
            span_id = item.payload.get("parent_span_id")
        else:
            return None
        return None if span_id is None else self._spans.get((item.instance_id, span_id))
