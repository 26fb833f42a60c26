"""What a request's operations are about: the facts by which a fault is aimed at some and spares others."""

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, TypeAlias

from pydantic_core import from_json

from prefactor_emulator.http.paths import API_PREFIX, BULK_PATH
from prefactor_emulator.model import OperationType, Refusal
from prefactor_emulator.operations import Operation, operation_of_item, operation_of_request
from prefactor_emulator.requests import MAX_ITEMS, CreateSpan, FinishSpan, RegisterInstance
from prefactor_emulator.storage.records import SpanRecord


class Subject(NamedTuple):
    """What one operation is about.

    Attributes:
        type: What it does.
        instance_id: The instance it belongs to, as far as that can be known.
        schema_name: The schema of its span, when it acts on one.
    """

    type: OperationType
    instance_id: str | None = None
    schema_name: str | None = None


FindSpan: TypeAlias = Callable[[str], SpanRecord | Subject | None]


def subject_of(operation: Operation, find_span: FindSpan) -> Subject:
    """Tell what an operation is about; the finish of a span is about the span's instance and schema."""
    match operation.body:
        case RegisterInstance(id=instance_id):
            return Subject(operation.type, instance_id)
        case CreateSpan(details=new):
            return Subject(operation.type, new.agent_instance_id, new.schema_name)
        case FinishSpan():
            span = find_span(operation.target or "")
            if span is None:
                return Subject(operation.type)
            return Subject(operation.type, span.instance_id, span.schema_name)
    return Subject(operation.type, operation.target)


def subjects_of_request(path: str, body: bytes, find_span: FindSpan) -> list[Subject]:
    """Tell what a request's operations are about. What cannot be read is about nothing.

    Args:
        path: The request's path.
        body: Its body.
        find_span: Finds a span that exists already.
    """
    subjects = []
    created: dict[str, Subject] = {}  # a bulk request may finish what it creates
    for operation in _operations(path, body):
        subject = subject_of(operation, lambda span_id: find_span(span_id) or created.get(span_id))
        subjects.append(subject)
        if isinstance(operation.body, CreateSpan) and operation.body.details.id:
            created[operation.body.details.id] = subject
    return subjects


def _operations(path: str, body: bytes) -> list[Operation]:
    try:
        value = from_json(body)
    except ValueError:
        return []
    if path != BULK_PATH:
        operation = operation_of_request(path.removeprefix(API_PREFIX), value)
        return [operation] if operation else []
    items = value.get("items") if isinstance(value, dict) else None
    operations = []
    if not isinstance(items, list) or len(items) > MAX_ITEMS:
        return []
    for item in items:
        with suppress(Refusal):
            operations.append(operation_of_item(item))
    return operations
