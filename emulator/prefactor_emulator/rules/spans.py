"""The rules of spans: where they may be created, and how they finish."""

from prefactor_emulator.fields import OBJECT, PFID, TEXT, TIMESTAMP, Complaints, Fields, one_of
from prefactor_emulator.ids import new_id
from prefactor_emulator.rules.instances import (
    FINAL_STATUS,
    Done,
    find_instance,
    invalid_action,
    target,
)
from prefactor_emulator.model import (
    FINAL_STATUSES,
    SPAN_STATUSES,
    Instance,
    JsonObject,
    Operation,
    Refusal,
    Span,
    Status,
    Storage,
)

_SPAN_STATUS = one_of(SPAN_STATUSES)


def create_span(storage: Storage, account: str, operation: Operation, now: str) -> Done:
    """Keep a new span below its instance and its parent."""
    complaints = Complaints()
    fields = Fields(operation.fields, complaints).inside("details")
    instance_id = fields.required("agent_instance_id", PFID)
    schema_name = fields.required("schema_name", TEXT)
    status = fields.required("status", _SPAN_STATUS)
    payload = fields.required("payload", OBJECT)
    span_id = fields.optional("id", PFID)
    parent_id = fields.optional("parent_span_id", PFID)
    started_at = fields.optional("started_at", TIMESTAMP)
    finished_at = fields.optional("finished_at", TIMESTAMP)
    result = fields.optional("result_payload", OBJECT)
    final = status in FINAL_STATUSES
    if result is not None and not final:
        fields.complain("result_payload", "belongs only to a span that is over")
    complaints.refuse_if_any()

    instance = find_instance(storage, account, instance_id)
    span = Span(
        id=span_id or new_id(instance_id),
        instance_id=instance_id,
        parent_span_id=parent_id,
        schema_name=schema_name,
        status=status,
        started_at=started_at or (None if status == Status.PENDING else now),
        finished_at=finished_at or (now if final else None),
    )
    if storage.span_taken(span.id):
        raise Refusal(409, "conflict", f"a span with id {span.id} exists already")
    _check_takes_spans(instance)
    if not storage.has_schema(instance.schema_version, schema_name):
        unknown = f"is no span schema of this instance's registered version: {schema_name!r}"
        fields.complain("schema_name", unknown)
        complaints.refuse_if_any()
    if parent_id is not None:
        parent = _find_span(storage, account, parent_id)
        if parent.instance_id != instance_id:
            fields.complain("parent_span_id", "is a span of another instance")
            complaints.refuse_if_any()
    storage.add_span(span, payload, result)
    return Done(_span_details(span), instance, span.id)


def finish_span(storage: Storage, account: str, operation: Operation, now: str) -> Done:
    """Move a span to a final state, with its result."""
    complaints = Complaints()
    span_id = target(operation, "agent_span_id", complaints)
    fields = Fields(operation.fields, complaints)
    if "details" in operation.fields:
        # The API takes this shape without a word and loses the result. Only the flat one keeps it.
        fields = fields.inside("details")
        status = fields.optional("status", FINAL_STATUS) or Status.COMPLETE
        timestamp = fields.optional("timestamp", TIMESTAMP) or now
        result = None
    else:
        status = fields.required("status", FINAL_STATUS)
        timestamp = fields.required("timestamp", TIMESTAMP)
        result = fields.optional("result_payload", OBJECT)
    complaints.refuse_if_any()

    span = _find_span(storage, account, span_id)
    instance = find_instance(storage, account, span.instance_id)
    ways_out = FINAL_STATUSES if span.status == Status.ACTIVE else (Status.CANCELLED,)
    if span.status in FINAL_STATUSES or status not in ways_out:
        raise invalid_action(f"the span is {span.status}: it cannot become {status}")
    storage.finish_span(span_id, status, timestamp, result)
    details = _span_details(span) | {"status": status, "finished_at": timestamp}
    return Done(details, instance, span_id)


def _find_span(storage: Storage, account: str, span_id: str) -> Span:
    span = storage.span(account, span_id)
    if span is None:
        raise Refusal(404, "not_found", f"there is no agent span {span_id}")
    return span


def _check_takes_spans(instance: Instance) -> None:
    # Assumed: spans are created strictly between an instance's start and its finish, and those that are left
    # open then can still be finished. A terminated instance takes both, as that is how its agent hears of it.
    if instance.status not in {Status.ACTIVE, Status.TERMINATED}:
        raise invalid_action(f"the instance is {instance.status}: only an active one takes spans")


def _span_details(span: Span) -> JsonObject:
    return {
        "id": span.id,
        "agent_instance_id": span.instance_id,
        "parent_span_id": span.parent_span_id,
        "schema_name": span.schema_name,
        "status": span.status,
        "started_at": span.started_at,
        "finished_at": span.finished_at,
    }
