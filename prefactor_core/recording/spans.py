"""Recording of spans: from calls to operations, and which spans are open."""

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from prefactor_core import context_stack
from prefactor_core.arguments import as_time, require_end_status, require_name
from prefactor_core.exceptions import (
    InvalidIdentifierError,
    InvalidPayloadError,
    PrefactorCoreError,
    SpanNotFoundError,
)
from prefactor_core.exclusive import Exclusive
from prefactor_core.identifiers import PfidFactory, require_pfid
from prefactor_core.models import FinishStatus
from prefactor_core.operations import Operation, OperationType
from prefactor_core.payloads import EncodedJson, encode_object, unserialisable_marker
from prefactor_core.recording.entrance import Entrance
from prefactor_core.recording.faces import Recorded
from prefactor_core.recording.handover import Wait
from prefactor_core.recording.instances import starts_of
from prefactor_core.recording.notices import Notices
from prefactor_core.recording.records import InstanceRecord, OpenSpan, SpanStatus
from prefactor_core.utils import validate_idempotency_key

_OPEN_KEPT: Final = 100_000
"""Spans that can be open at once; then the oldest are forgotten, as spans that will never be finished."""
_ORPHANS_KEPT: Final = 10_000
"""Spans left open by finished instances that can still be finished; then the oldest are forgotten."""
_NAMES: Final = 200
"""About what the ids, names and times of a span's operation take, in bytes."""


class SpanRecorder:
    """Records spans, in any thread, and knows those that are open.

    A span's create is put no later than the create of any of its descendants, whatever order the calls come
    in: the API takes a child only after its parent. Before the first span of an instance its start is put,
    if that was not.

    Arguments that are malformed raise ``InvalidInputError``, and a span that is not open here
    ``SpanNotFoundError``; then nothing is put. Times without a zone are UTC.

    Args:
        call_soon: Has a function called in the event loop that delivers; raises ``RuntimeError`` if it is
            closed.
    """

    def __init__(
        self,
        entrance: Entrance,
        ids: PfidFactory,
        now: Callable[[], datetime],
        call_soon: Callable[[Callable[[], None]], object],
    ) -> None:
        self._entrance = entrance
        self._ids = ids
        self._now = now
        self._call_soon = call_soon
        self._notices = Notices()
        # Ordered by a list of its own: the first of a plain dictionary is slow to find among many removed.
        self._open: OrderedDict[str, OpenSpan] = OrderedDict()
        self._orphans: OrderedDict[str, OpenSpan] = OrderedDict()
        self._orphans_turn = Exclusive()
        self._abandoned: deque[tuple[OpenSpan, Mapping[str, Any] | None]] = deque()

    # -- opening

    def open(
        self,
        instance_id: str,
        schema_name: str,
        parent_span_id: str | None = None,
        payload: object = None,
        span_id: str | None = None,
    ) -> OpenSpan:
        """Open a span here, without telling the API yet, and make it the innermost one.

        Args:
            instance_id: PFID of the instance.
            schema_name: Name of the span's schema.
            parent_span_id: By default the innermost open span of the same instance.
            payload: What ``start`` sends if it is not given anything else, as it is now.
            span_id: A PFID of the caller's choice, by default a new one.
        """
        self._entrance.check()
        encoded = encode_object(payload, "payload")
        record = self._entrance.records.get(instance_id)
        if record is None:
            record = self._entrance.records.of(require_pfid(instance_id, "instance_id"))
        require_name(schema_name, "schema_name")
        if span_id is not None and require_pfid(span_id, "span_id") in self._open:
            raise InvalidIdentifierError("span_id", f"{span_id} is open already")
        known = record.schema_names
        if known and schema_name not in known:
            self._notices.unknown_schema(schema_name, known)
        parent_id = self._parent(record, parent_span_id)
        if len(self._open) >= _OPEN_KEPT:
            self._forget_oldest()
        span = OpenSpan(
            span_id or self._ids.related(instance_id), record, schema_name, parent_id, encoded, self._now()
        )
        while not self._keep(span):
            span.instance = self._entrance.records.of(instance_id)
        context_stack.push(span.id, span)
        return span

    def create(
        self,
        instance_id: str,
        schema_name: str,
        parent_span_id: str | None = None,
        payload: dict[str, Any] | None = None,
        span_id: str | None = None,
        started_at: datetime | None = None,
    ) -> Recorded[str]:
        """Open a span, put its create and return its id; it stays the innermost one until it is finished."""
        began = as_time(started_at, "started_at")
        span = self.open(instance_id, schema_name, parent_span_id, payload, span_id)
        return span.id, span.instance.alone(self._start, span, began or span.opened_at, None)

    def start(
        self, span: OpenSpan, payload: Mapping[str, Any] | None = None, started_at: datetime | None = None
    ) -> Recorded[bool]:
        """Put the create of an open span as active, after those of its ancestors that were not put yet.

        Without a payload it sends what it was opened with; without a time it began now.

        Returns:
            False if the span was started before (by a child of its own, maybe), and nothing was done.
        """
        self._entrance.check()
        if span.over:
            self._entrance.check()  # it may be over since the client was closed just now
            raise not_open(span.id)
        if span.status != "pending":
            return False, None
        encoded = None if payload is None else encode_object(payload, "payload")
        began = None if started_at is None else as_time(started_at, "started_at")
        return True, span.instance.alone(self._start, span, began, encoded)

    # -- finishing

    def finish(
        self,
        span: OpenSpan,
        result_payload: Mapping[str, Any] | None = None,
        status: FinishStatus = "complete",
        idempotency_key: str | None = None,
        timestamp: datetime | None = None,
    ) -> Recorded[None]:
        """Put the finish of an open span and forget the span. One that was never started is started first.

        Such a span began when it was opened. A result that cannot be sent is replaced by a marker that says
        so: telemetry must not cost the agent its answer.
        """
        self._entrance.check()
        if span.over:
            self._entrance.check()  # it may be over since the client was closed just now
            raise not_open(span.id)
        require_end_status(status)
        ended = None if timestamp is None else as_time(timestamp, "timestamp")
        key = f"{span.id}:finish" if idempotency_key is None else validate_idempotency_key(idempotency_key)
        result = result_payload if isinstance(result_payload, EncodedJson) else None
        if result_payload is not None and result is None:
            result = self._encode_or_mark(result_payload, span.schema_name, "result_payload")
        return None, span.instance.alone(self._finish, span, result, status, ended, key)

    def cancel_unstarted(self, span: OpenSpan, timestamp: datetime | None = None) -> Recorded[None]:
        """Put an open span as pending and cancel it at once: that no work began is then on record."""
        self._entrance.check()
        if span.over:
            self._entrance.check()  # it may be over since the client was closed just now
            raise not_open(span.id)
        ended = as_time(timestamp, "timestamp")
        return None, span.instance.alone(
            self._finish, span, None, "cancelled", ended, f"{span.id}:finish", created_as="pending"
        )

    def abandoned(self, span: OpenSpan, result: Mapping[str, Any] | None) -> None:
        """Have a span finished as complete that nobody holds any more. Can be called at any moment, anywhere.

        Nothing is done once the client is closed.
        """
        if self._entrance.is_inherited:
            return  # its parent process has the same span
        self._abandoned.append((span, result))
        with suppress(RuntimeError):  # the event loop is closed
            self._call_soon(self._finish_abandoned)

    # -- what is known

    def find(self, span_id: str) -> OpenSpan:
        """Return an open span by its id."""
        span = self._open.get(span_id)
        if span is None:
            raise not_open(span_id)
        return span

    def instance_finished(self, record: InstanceRecord) -> None:
        """Let go, in time, of spans that the instance left open."""
        if not record.spans:
            return
        for span in self._orphans_turn.hold(self._orphaned, list(record.spans.values())):
            span.instance.alone(self._forget, span)

    @property
    def open_spans(self) -> int:
        """How many spans are open."""
        return len(self._open)

    def check(self) -> None:
        """Raise if no call is taken."""
        self._entrance.check()

    def encode_result(self, span: OpenSpan, value: object) -> EncodedJson:
        """Return a result as it is now; a marker if it cannot be sent."""
        return self._encode_or_mark(value, span.schema_name, "result_payload")

    def warn_once(self, span: OpenSpan, problem: str) -> None:
        """Log what was done wrong with a span, once for its schema."""
        self._notices.once(span.schema_name, problem)

    # -- what is done alone

    def _keep(self, span: OpenSpan) -> bool:
        """Take note of a span; false if its record was forgotten just now."""
        record = span.instance
        self._open[span.id] = record.spans[span.id] = span
        if record.forgotten:
            record.spans.pop(span.id, None)
            return False
        return True  # whoever forgets the record from now on sees the span first

    def _start(self, span: OpenSpan, began: datetime | None, payload: EncodedJson | None) -> Wait | None:
        if span.status != "pending":
            return None
        return self._entrance.give(self._creates(span, began, "active", payload))

    def _finish(
        self,
        span: OpenSpan,
        result: EncodedJson | None,
        status: FinishStatus,
        ended: datetime | None,
        key: str,
        *,
        created_as: SpanStatus = "active",
    ) -> Wait | None:
        if span.over:
            self._entrance.check()  # as above: then this call came too late
            return None
        operations = self._creates(span, span.opened_at, created_as) if span.status == "pending" else []
        now = self._now()
        fields: dict[str, Any] = {
            "instance_id": span.instance.id,
            "span_id": span.id,
            "status": status,
            "timestamp": (ended or now).isoformat(),
        }
        size = _NAMES
        if result is not None:
            fields["result_payload"] = result
            size += len(result.encoded)
        span.status = status
        self._forget(span)
        operations.append(Operation.minted(OperationType.FINISH_SPAN, fields, now, key, size))
        return self._entrance.give(operations)

    def _forget(self, span: OpenSpan) -> None:
        if span.over:
            return
        span.over = True
        record = span.instance
        self._open.pop(span.id, None)
        record.spans.pop(span.id, None)
        if record.finished:
            self._orphans_turn.hold(self._orphans.pop, span.id, None)
        if record.agent_instance is None and not record.spans:
            self._entrance.records.forget(record)
        context_stack.uncover()

    def _creates(
        self, span: OpenSpan, began: datetime | None, status: SpanStatus, payload: EncodedJson | None = None
    ) -> list[Operation]:
        """Mark a span and its unstarted ancestors as put, and return their creates, outermost first.

        It ``began`` now by default. The others began when they were opened: their work may be over by now.
        """
        now = self._now()
        if began is None:
            began = now
        record = span.instance
        operations = [self._create(span, payload, began, now, status)]
        parent_id = span.parent_id
        while parent_id is not None:
            parent = record.spans.get(parent_id)
            if parent is None or parent.status != "pending":
                break
            operations.insert(0, self._create(parent, None, parent.opened_at, now, "active"))
            began = min(began, parent.opened_at)
            parent_id = parent.parent_id
        instance = record.agent_instance
        if instance is not None and instance.status == "pending":
            operations[:0] = starts_of(record, began, now)
        return operations

    def _create(
        self, span: OpenSpan, payload: EncodedJson | None, began: datetime, now: datetime, status: SpanStatus
    ) -> Operation:
        if payload is None:  # it is put with what it was opened with
            kept = span.payload
            if isinstance(kept, EncodedJson):
                payload = kept
            else:
                payload = self._encode_or_mark(kept, span.schema_name, "payload")
        fields: dict[str, Any] = {
            "instance_id": span.instance.id,
            "span_id": span.id,
            "schema_name": span.schema_name,
            "status": status,
            "payload": payload,
        }
        if span.parent_id is not None:
            fields["parent_span_id"] = span.parent_id
        if status == "active":
            fields["started_at"] = began.isoformat()
            span.started_at = began
        span.status = "active"  # put: for us it is under way, cancelled though it may be next
        span.payload = {}
        key = f"{span.id}:create"
        size = _NAMES + len(span.schema_name) + len(payload.encoded)
        return Operation.minted(OperationType.CREATE_SPAN, fields, now, key, size)

    # -- inside

    def _orphaned(self, spans: list[OpenSpan]) -> list[OpenSpan]:
        """Take note of spans of a finished instance, and return those that are too many."""
        self._orphans.update((span.id, span) for span in spans)
        beyond = len(self._orphans) - _ORPHANS_KEPT
        return [self._orphans.popitem(last=False)[1] for _ in range(beyond)]

    def _parent(self, record: InstanceRecord, explicit: str | None) -> str | None:
        if explicit is None:
            return context_stack.innermost(record.spans.__contains__) if record.spans else None
        require_pfid(explicit, "parent_span_id")
        known = self._open.get(explicit)
        if known is not None and known.instance.id != record.id:
            raise InvalidIdentifierError(
                "parent_span_id",
                f"{explicit} is a span of instance {known.instance.id}, not of {record.id}",
            )
        return explicit

    def _forget_oldest(self) -> None:
        try:
            oldest = next(iter(self._open.values()))
        except (StopIteration, RuntimeError):  # others open and finish spans meanwhile
            return
        oldest.instance.alone(self._forget, oldest)
        problem = f"{_OPEN_KEPT:,} later spans were opened and not finished"
        message = "prefactor: a %s span is recorded without its finish: %s"
        self._notices.say("span", message, oldest.schema_name, problem)

    def _finish_abandoned(self) -> None:
        while self._abandoned:
            span, result = self._abandoned.popleft()
            if span.over:
                continue
            try:
                self._entrance.check(puts=False)
                self.warn_once(span, "dropped without an end, and so finished as complete")
                self.finish(span, result)
            except PrefactorCoreError:
                pass  # the client is closed, or delivery has failed, and says so itself
            except Exception as error:  # noqa: BLE001 -- the queue may be the user's own, and nobody waits
                self.warn_once(span, f"dropped without an end, and not finished: {type(error).__name__}")

    def _encode_or_mark(self, value: object, schema_name: str, field: str) -> EncodedJson:
        try:
            return encode_object(value, field)
        except InvalidPayloadError as error:
            problem = "prefactor: a %s span is recorded without its %s: %s"
            self._notices.say(error.field, problem, schema_name, field, error)
            return unserialisable_marker(error)


def not_open(span_id: object) -> SpanNotFoundError:
    """Return the error for a span that is not open."""
    return SpanNotFoundError(
        f"span {span_id!r} is not open in this client: never opened here, or finished already"
    )
