"""Spans: from calls to operations, and which spans are open."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from difflib import get_close_matches
from typing import Any, Final
from weakref import WeakMethod

from prefactor_core.arguments import as_time, require_end_status, require_name
from prefactor_core.context_stack import SpanContextStack, StackedSpan, TellsOpen
from prefactor_core.exceptions import (
    InvalidIdentifierError,
    InvalidPayloadError,
    PrefactorCoreError,
    SpanNotFoundError,
)
from prefactor_core.identifiers import PfidFactory, require_pfid
from prefactor_core.models import FinishStatus, Span
from prefactor_core.operations import Operation, OperationType
from prefactor_core.outbox import Entrance
from prefactor_core.payloads import EncodedJson, encode_object, unserialisable_marker
from prefactor_core.utils import validate_idempotency_key

logger = logging.getLogger(__name__)

_OPEN_KEPT: Final = 100_000
"""Spans that can be open at once; then the oldest are forgotten, as spans that will never be finished."""
_ORPHANS_KEPT: Final = 10_000
"""Spans left open by finished instances that can still be finished; then the oldest are forgotten."""
_PLACES_KEPT: Final = 1_000
"""Places (schema, field, problem) that have been warned about; then warnings stop."""


class SpanManager:
    """Knows the open spans and puts their operations.

    A span's create is put no later than the create of any of its descendants, whatever order the calls come
    in: the API takes a child only after its parent. ``start_if_pending`` returns what has to be put before
    the first span of an instance, which began then; ``schema_names`` returns the span types of an instance,
    none where they are not known.

    Arguments that are malformed raise ``InvalidInputError``, and a span that is not open here
    ``SpanNotFoundError``; then nothing is put. Times without a zone are UTC.

    It is made in the event loop that it belongs to.
    """

    def __init__(
        self,
        entrance: Entrance,
        ids: PfidFactory,
        now: Callable[[], datetime],
        start_if_pending: Callable[[str, datetime], list[Operation]],
        schema_names: Callable[[str], frozenset[str]],
    ) -> None:
        self._entrance = entrance
        self._ids = ids
        self._now = now
        self._start_if_pending = start_if_pending
        self._schema_names = schema_names
        self._loop = asyncio.get_running_loop()
        self._ending_abandoned: set[asyncio.Task[None]] = set()  # the loop itself holds no task
        # Ordered by a list of its own: the first of a plain dictionary is slow to find among many removed.
        self._open: OrderedDict[str, Span] = OrderedDict()
        self._of_instance: dict[str, set[str]] = {}
        self._orphans: OrderedDict[str, None] = OrderedDict()
        self._warned: set[tuple[str, str]] = set()
        # One for all spans; stacks outlive clients.
        self._tells_open: TellsOpen = WeakMethod(self.is_open)

    # -- opening

    def prepare(
        self,
        instance_id: str,
        schema_name: str,
        parent_span_id: str | None = None,
        payload: dict[str, Any] | None = None,
    ) -> str:
        """Open a span here, without telling the API yet, make it the innermost one, and return its id.

        The parent is by default the innermost open span of the same instance; ``payload`` is what ``start``
        sends if it is not given anything else.
        """
        self._entrance.check()
        encoded = encode_object(payload, "payload")
        span = self._new(instance_id, schema_name, parent_span_id)
        span.payload = encoded  # as it was at the call, whatever the caller changes later
        return span.id

    async def create(
        self,
        instance_id: str,
        schema_name: str,
        parent_span_id: str | None = None,
        payload: dict[str, Any] | None = None,
        span_id: str | None = None,
        started_at: datetime | None = None,
    ) -> str:
        """Open a span, put its create and return its id; it stays the innermost one until it is finished.

        ``span_id`` is a PFID of the caller's choice, by default a new one.
        """
        self._entrance.check()
        encoded = encode_object(payload, "payload")
        began = as_time(started_at, "started_at")
        span = self._new(instance_id, schema_name, parent_span_id, span_id)
        await self._entrance.put(*self._creates(span, began, payload=encoded))
        return span.id

    async def start(
        self, temp_id: str, payload: Mapping[str, Any] | None = None, started_at: datetime | None = None
    ) -> bool:
        """Put the create of a prepared span as active, after those of its ancestors that were not put yet.

        Without a payload it sends what it was prepared with; without a time it began now.

        Returns:
            False if the span was started before (by a child of its own, maybe), and nothing was done.
        """
        self._entrance.check()
        span = self.get_span(temp_id)
        if span.status != "pending":
            return False
        encoded = encode_object(span.payload if payload is None else payload, "payload")
        began = as_time(started_at, "started_at") or self._now()
        await self._entrance.put(*self._creates(span, began, payload=encoded))
        return True

    # -- finishing

    async def finish(
        self,
        span_id: str,
        result_payload: Mapping[str, Any] | None = None,
        status: FinishStatus = "complete",
        idempotency_key: str | None = None,
        timestamp: datetime | None = None,
    ) -> None:
        """Put the finish of an open span and forget the span. One that was never started is started first.

        Such a span began when it was prepared. A result that cannot be sent is replaced by a marker that says
        so: telemetry must not cost the agent its answer.
        """
        self._entrance.check()
        span = self.get_span(span_id)
        require_end_status(status)
        ended = as_time(timestamp, "timestamp")
        key = f"{span_id}:finish" if idempotency_key is None else validate_idempotency_key(idempotency_key)
        creates = self._creates(span) if span.status == "pending" else []
        await self._put_finish(span, creates, result_payload, status, ended, key)

    async def cancel_unstarted(self, temp_id: str, timestamp: datetime | None = None) -> None:
        """Put a prepared span as pending and cancel it at once: that no work began is then on record."""
        self._entrance.check()
        span = self.get_span(temp_id)
        ended = as_time(timestamp, "timestamp")
        creates = self._creates(span, status="pending")
        await self._put_finish(span, creates, None, "cancelled", ended, f"{temp_id}:finish")

    def abandoned(self, span_id: str, result: Mapping[str, Any] | None) -> None:
        """Have a span finished as complete that nobody holds any more. Can be called at any moment, anywhere.

        Nothing is done once the client is closed.
        """
        if span_id in self._open:
            with suppress(RuntimeError):  # its loop is closed
                self._loop.call_soon_threadsafe(self._end_abandoned, span_id, result)

    def _end_abandoned(self, span_id: str, result: Mapping[str, Any] | None) -> None:
        task = self._loop.create_task(self._finish_abandoned(span_id, result))
        self._ending_abandoned.add(task)
        task.add_done_callback(self._ending_abandoned.discard)

    async def _finish_abandoned(self, span_id: str, result: Mapping[str, Any] | None) -> None:
        if span_id not in self._open:
            return
        try:
            self._entrance.check(puts=False)
            self.warn_once(span_id, "dropped without an end, and so finished as complete")
            await self.finish(span_id, result)
        except PrefactorCoreError:
            pass  # the client is closed, or delivery has failed, and says so itself
        except Exception as error:  # noqa: BLE001 -- the queue may be the user's own, and nobody waits for this
            self.warn_once(span_id, f"dropped without an end, and not finished: {type(error).__name__}")

    def get_span(self, span_id: str) -> Span:
        """Return an open span."""
        span = self._open.get(span_id)
        if span is None:
            raise SpanNotFoundError(
                f"span {span_id!r} is not open in this client: never opened here, or finished already"
            )
        return span

    def is_open(self, span_id: str) -> bool:
        """Whether the span is open here."""
        return span_id in self._open

    def instance_finished(self, instance_id: str) -> None:
        """Let go, in time, of spans that the instance left open."""
        for span_id in self._of_instance.get(instance_id, ()):
            self._orphans[span_id] = None
        while len(self._orphans) > _ORPHANS_KEPT:
            self._remove(self._open[next(iter(self._orphans))])

    @property
    def open_spans(self) -> int:
        """How many spans are open."""
        return len(self._open)

    def encode_result(self, span_id: str, value: object) -> EncodedJson:
        """Return a result as it is now; a marker if it cannot be sent."""
        return self._encode_or_mark(value, self._schema_of(span_id), "result_payload")

    # -- inside

    def _new(
        self, instance_id: str, schema_name: str, parent_span_id: str | None, span_id: str | None = None
    ) -> Span:
        require_pfid(instance_id, "instance_id")
        require_name(schema_name, "schema_name")
        if span_id is not None and require_pfid(span_id, "span_id") in self._open:
            raise InvalidIdentifierError("span_id", f"{span_id} is open already")
        known = self._schema_names(instance_id)
        if known and schema_name not in known:
            self._warn_unknown(schema_name, known)
        span = Span(
            id=span_id or self._ids.related(instance_id),
            instance_id=instance_id,
            schema_name=schema_name,
            parent_span_id=self._parent(instance_id, parent_span_id),
            created_at=self._now(),
        )
        if len(self._open) >= _OPEN_KEPT:
            oldest = next(iter(self._open.values()))
            self._remove(oldest)
            problem = f"{_OPEN_KEPT:,} later spans were opened and not finished"
            message = "prefactor: a %s span is recorded without its finish: %s"
            self._warn("span", message, oldest.schema_name, problem)
        self._open[span.id] = span
        self._of_instance.setdefault(instance_id, set()).add(span.id)
        SpanContextStack.push(StackedSpan(span.id, self._tells_open))
        return span

    def _parent(self, instance_id: str, explicit: str | None) -> str | None:
        if explicit is None:
            siblings = self._of_instance.get(instance_id)
            # None is usual, with a first span: without a look at every other instance's.
            return None if siblings is None else SpanContextStack.innermost(siblings.__contains__)
        require_pfid(explicit, "parent_span_id")
        known = self._open.get(explicit)
        if known is not None and known.instance_id != instance_id:
            raise InvalidIdentifierError(
                "parent_span_id",
                f"{explicit} is a span of instance {known.instance_id}, not of {instance_id}",
            )
        return explicit

    def _remove(self, span: Span) -> None:
        del self._open[span.id]
        siblings = self._of_instance[span.instance_id]
        siblings.remove(span.id)
        if not siblings:
            del self._of_instance[span.instance_id]
        self._orphans.pop(span.id, None)
        SpanContextStack.uncover()

    def _creates(
        self,
        span: Span,
        started_at: datetime | None = None,
        status: str = "active",
        payload: EncodedJson | None = None,
    ) -> list[Operation]:
        """Mark a span and its unstarted ancestors as put, and return their creates, outermost first.

        Where nothing else is said they began when they were opened: their work may be over by now.
        """
        now = self._now()
        began = started_at or span.created_at
        operations = [self._create(span, payload, began, now, status)]
        parent_id = span.parent_span_id
        while parent_id is not None:
            parent = self._open.get(parent_id)
            if parent is None or parent.status != "pending":
                break
            operations.append(self._create(parent, None, parent.created_at, now, "active"))
            began = min(began, parent.created_at)
            parent_id = parent.parent_span_id
        operations += reversed(self._start_if_pending(span.instance_id, began))
        operations.reverse()
        return operations

    def _create(
        self, span: Span, payload: EncodedJson | None, started_at: datetime, now: datetime, status: str
    ) -> Operation:
        if payload is None:  # it is put with what it was prepared with
            payload = self._encode_or_mark(span.payload, span.schema_name, "payload")
        fields: dict[str, Any] = {
            "instance_id": span.instance_id,
            "span_id": span.id,
            "schema_name": span.schema_name,
            "status": status,
            "payload": payload,
        }
        if span.parent_span_id is not None:
            fields["parent_span_id"] = span.parent_span_id
        if status == "active":
            fields["started_at"] = started_at.isoformat()
            span.started_at = started_at
        span.status = "active"  # put: for us it is under way, cancelled though it may be next
        span.payload = {}
        return Operation(OperationType.CREATE_SPAN, fields, now, f"{span.id}:create")

    async def _put_finish(
        self,
        span: Span,
        creates: list[Operation],
        result_payload: Mapping[str, Any] | None,
        status: str,
        ended: datetime | None,
        idempotency_key: str,
    ) -> None:
        now = self._now()
        fields: dict[str, Any] = {
            "instance_id": span.instance_id,
            "span_id": span.id,
            "status": status,
            "timestamp": (ended or now).isoformat(),
        }
        if result_payload is not None:
            fields["result_payload"] = self._encode_or_mark(
                result_payload, span.schema_name, "result_payload"
            )
        span.status = status
        span.finished_at = ended or now
        self._remove(span)
        finish = Operation(OperationType.FINISH_SPAN, fields, now, idempotency_key)
        await self._entrance.put(*creates, finish)

    def _encode_or_mark(self, value: object, schema_name: str, field: str) -> EncodedJson:
        try:
            return encode_object(value, field)
        except InvalidPayloadError as error:
            problem = "prefactor: a %s span is recorded without its %s: %s"
            self._warn(error.field, problem, schema_name, field, error)
            return unserialisable_marker(error)

    def _schema_of(self, span_id: str) -> str:
        """Return what warnings call a span's schema."""
        span = self._open.get(span_id)
        return span.schema_name if span is not None else "finished"

    def warn_once(self, span_id: str, problem: str) -> None:
        """Log what was done wrong with a span, once for its schema."""
        schema_name = self._schema_of(span_id)
        self._warn(problem, "prefactor: a %s span: %s (logged once)", schema_name, problem)

    def _warn_unknown(self, schema_name: str, known: frozenset[str]) -> None:
        if self._is_news(schema_name, "unknown"):
            nearest = get_close_matches(schema_name, known, n=1)
            hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
            message = "prefactor: no schema named %r is registered%s: its spans are recorded, and flagged"
            logger.warning(message, schema_name, hint)

    def _warn(self, problem: str, message: str, schema_name: str, *details: object) -> None:
        if self._is_news(schema_name, problem):
            logger.warning(message, schema_name, *details)

    def _is_news(self, schema_name: str, problem: str) -> bool:
        place = (schema_name, problem)
        if place in self._warned or len(self._warned) >= _PLACES_KEPT:
            return False
        self._warned.add(place)
        return True
