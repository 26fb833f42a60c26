"""Dependents: an operation that is lost takes along what makes no sense without it.

Half an instance is worse than none. The rule is used at both ends: by the bounded buffer when it drops,
and by the executor when it dead-letters.
"""

from dataclasses import dataclass
from typing import Final

from prefactor_core.bounded import remember
from prefactor_core.operations import SEQUENCE, SPAN, Operation, OperationType, Stage

_INSTANCES_KEPT: Final = 10_000
"""Lost instances remembered. Past that the oldest is forgotten: what comes of it later is tried, and refused
by the API, instead of being held back here."""

_SPANS_KEPT: Final = 100_000
"""Lost spans remembered; past that, too, the oldest is forgotten."""


@dataclass(frozen=True, slots=True)
class LostOperation:
    """Why an operation is lost, and after how many successes a rejection began that, if one did.

    ``superseded`` if that is how it should be: its instance is terminated.
    """

    reason: str = ""
    rejected_at: int | None = None
    superseded: bool = False


_SUPERSEDED: Final = LostOperation(superseded=True)


@dataclass(frozen=True, slots=True)
class _LostInstance:
    """An instance that is lost, and the operation that lost it."""

    kind: OperationType
    key: str | None
    sequence: int | None
    loss: LostOperation

    def begins_anew_with(self, item: Operation) -> bool:
        """Whether ``item`` is to be tried in spite of the loss: it comes before what lost the instance."""
        stage = item.type.rules.stage
        if stage < Stage.RUN:
            return stage <= self.kind.rules.stage
        if (item.type, _name(item)) == (self.kind, self.key):
            return True
        sequence = _sequence(item)
        return sequence is not None and self.sequence is not None and sequence < self.sequence


class Dependents:
    """Remembers what was lost, and says what is lost with it.

    That is all of an instance whose registration or start is lost, or that the API does not know, and the
    finish and the descendants of a span whose create is lost. If that is lost since its instance is over, it
    is every later span of the instance.
    """

    def __init__(self) -> None:
        self._instances: dict[str, _LostInstance] = {}
        self._spans: dict[tuple[str, str], LostOperation] = {}
        self._no_spans: dict[str, LostOperation] = {}  # by instance: why it takes no new ones

    def __bool__(self) -> bool:
        """Whether anything is remembered: the cheap question before ``loss_of``."""
        return bool(self._instances or self._spans or self._no_spans)

    def lose(
        self,
        item: object,
        reason: str,
        *,
        rejected_at: int | None = None,
        whole: bool = False,
        spans: bool = False,
    ) -> None:
        """Remember that ``item`` is lost. Items that are no operations have no dependents.

        ``rejected_at`` is as in ``LostOperation``; with ``whole`` the item's instance is lost, whatever the
        item is, and with ``spans`` every later span of it.
        """
        if not isinstance(item, Operation) or item.instance_id is None:
            return
        loss = LostOperation(reason, rejected_at)
        if whole or item.type.rules.stage < Stage.RUN:
            if item.instance_id in self._instances:
                return  # what it follows is what has to be revived
            lost = _LostInstance(item.type, _name(item), _sequence(item), loss)
            remember(self._instances, item.instance_id, lost, _INSTANCES_KEPT)
        elif SPAN in item.type.rules.opens and item.span_id is not None:
            remember(self._spans, (item.instance_id, item.span_id), loss, _SPANS_KEPT)
            if spans:
                remember(self._no_spans, item.instance_id, loss, _INSTANCES_KEPT)

    def supersede(self, item: object) -> None:
        """Remember that ``item`` is superseded: with a span, its finish is, and every later span."""
        if isinstance(item, Operation) and item.instance_id is not None and SPAN in item.type.rules.opens:
            remember(self._no_spans, item.instance_id, _SUPERSEDED, _INSTANCES_KEPT)
            if item.span_id is not None:
                remember(self._spans, (item.instance_id, item.span_id), _SUPERSEDED, _SPANS_KEPT)

    def revive(self, item: object) -> None:
        """Forget that ``item`` was lost: it has had its effect after all, or another owner decides."""
        if not isinstance(item, Operation) or item.instance_id is None:
            return
        lost = self._instances.get(item.instance_id)
        if lost is not None and lost.begins_anew_with(item):
            del self._instances[item.instance_id]
        if SPAN in item.type.rules.opens:
            self._spans.pop((item.instance_id, item.span_id or ""), None)
            self._no_spans.pop(item.instance_id, None)

    def reason(self, item: object) -> str | None:
        """Return why ``item`` is lost along with something, or was itself; ``None`` if it is not."""
        loss = self.loss_of(item, tried_anew=False)
        return None if loss is None else loss.reason

    def loss_of(self, item: object, *, tried_anew: bool = True) -> LostOperation | None:
        """Return why ``item`` must not be sent, ``None`` if it may be.

        What lost its instance itself, or comes before that, is ``tried_anew``: it is replayed, or its owner
        has changed. Only once it has had its effect does ``revive`` let its dependents be sent.
        """
        if not isinstance(item, Operation) or item.instance_id is None:
            return None
        lost = self._instances.get(item.instance_id)
        if lost is not None and not (tried_anew and lost.begins_anew_with(item)):
            return lost.loss
        if item.instance_id in self._no_spans and SPAN in item.type.rules.opens:
            return self._no_spans[item.instance_id]
        span_id = item.needed_span_id
        return None if span_id is None else self._spans.get((item.instance_id, span_id))


def _name(item: Operation) -> str | None:
    """Return what tells an operation from others of its type, whatever key a replay gave it."""
    return item.idempotency_key if item.span_id is None else item.span_id


def _sequence(item: Operation) -> int | None:
    """Return the item's place among what its producer put for its instance, where a broker tells."""
    sequence = item.metadata.get(SEQUENCE)
    return sequence if isinstance(sequence, int) else None
