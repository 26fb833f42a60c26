"""The rules of spans: where they may be created, and how they finish."""

from prefactor_emulator.ids import new_id
from prefactor_emulator.model import (
    FINAL_STATUSES,
    JsonObject,
    Status,
    conflict,
    invalid,
    invalid_action,
    not_found,
)
from prefactor_emulator.requests import CreateSpan, FinishSpan
from prefactor_emulator.rules.call import Call, Done
from prefactor_emulator.rules.details import span_details
from prefactor_emulator.rules.instances import find_instance
from prefactor_emulator.storage.records import InstanceRecord, SpanRecord

_TAKES_SPANS = (Status.PENDING, Status.ACTIVE)


def create(call: Call, _target: str, body: CreateSpan) -> Done:
    """Keep a new span below its instance and its parent.

    Raises:
        Refusal: One of these is not there, the instance is over, or the id is taken.
    """
    new = body.details
    instance = find_instance(call, new.agent_instance_id)
    span_id = new.id or new_id(instance.id)
    # A repeat is told below that its span exists, whatever has become of the instance since.
    if not _takes_spans(call, instance) and call.store.span(span_id) is None:
        raise invalid_action(f"the instance is {instance.status}: it takes no more spans")
    if new.parent_span_id is not None:
        parent, _ = _find_span(call, new.parent_span_id)
        if parent.instance_id != instance.id:
            raise invalid({"details.parent_span_id": ["is a span of another instance"]})
    sensitive = bool(new.sensitive_encoding)
    values = (new.schema_name, new.payload, new.result_payload)
    found = call.assess(instance, "details.payload", lambda each: each.span(*values, sensitive=sensitive))
    span = SpanRecord(
        id=span_id,
        instance_id=instance.id,
        parent_span_id=new.parent_span_id,
        schema_name=new.schema_name,
        schema_title=found.title,
        status=new.status,
        payload=new.payload,
        result_payload=new.result_payload,
        sensitive_encoding=int(sensitive),
        summary=found.summary,
        flags=found.flags,
        inserted_at=call.now,
        updated_at=call.now,
        started_at=new.started_at or (None if new.status == "pending" else call.now),
        finished_at=(new.finished_at or call.now) if new.status in FINAL_STATUSES else None,
    )
    if not call.store.add(span):
        raise conflict(f"a span with id {span_id} exists already")
    return _done(span, instance)


def finish(call: Call, span_id: str, body: FinishSpan) -> Done:
    """Move a span to a final state, with its result.

    Raises:
        Refusal: There is no such span, or its state does not allow it.
    """
    span, instance = _find_span(call, span_id)
    said = body if body.details is None else body.details
    status = said.status or Status.COMPLETE
    ways_out = FINAL_STATUSES if span.status == Status.ACTIVE else (Status.CANCELLED,)
    if span.status in FINAL_STATUSES or status not in ways_out:
        raise invalid_action(f"the span is {span.status}: it cannot become {status}")
    # The API takes the wrapped shape without a word and loses the result. Only the flat one keeps it.
    result = body.result_payload if body.details is None else None
    changes = {"status": status, "finished_at": said.timestamp or call.now, "updated_at": call.now}
    if result is None:
        return _done(call.store.update(span, **changes), instance)
    sensitive = bool(span.sensitive_encoding or body.sensitive_encoding)
    values = (span.schema_name, span.payload, result)
    found = call.assess(instance, "result_payload", lambda each: each.span(*values, sensitive=sensitive))
    finished = call.store.update(
        span,
        **changes,
        result_payload=result,
        sensitive_encoding=int(sensitive),
        summary=found.summary,
        flags=found.flags,
    )
    return _done(finished, instance)


def _takes_spans(call: Call, instance: InstanceRecord) -> bool:
    if instance.status == Status.TERMINATED:
        # Assumed, unless strict: their replies are how the agent of a terminated instance hears of it.
        return not call.strict_termination
    return instance.status in _TAKES_SPANS


def _find_span(call: Call, span_id: str) -> tuple[SpanRecord, InstanceRecord]:
    span = call.store.span(span_id)
    instance = call.instance(span.instance_id) if span else None
    if span is None or instance is None:
        raise not_found(f"agent span {span_id}")
    return span, instance


def _done(span: SpanRecord, instance: InstanceRecord) -> Done:
    signal: JsonObject = {"control": {"terminate": True, "reason": instance.termination_reason}}
    control = signal if instance.status == Status.TERMINATED else {}
    return Done(span_details(span, instance), instance.id, span.id, control)
