"""What a request's operations are about: the facts by which a fault is aimed at some and spares others."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias, cast

from pydantic_core import from_json

from prefactor_emulator.http.paths import API_PREFIX, BULK_PATH, write_at
from prefactor_emulator.model import JsonObject, Operation, OperationType, Refusal, Span
from prefactor_emulator.requests import operation_from_item, operation_from_request

FindSpan: TypeAlias = Callable[[str], Span | None]


@dataclass(frozen=True, slots=True)
class Subject:
    """What one operation is about.

    Attributes:
        type: What it does.
        instance_id: The instance it belongs to, as far as that can be known.
        schema_name: The schema of its span, when it acts on one.
    """

    type: OperationType
    instance_id: str | None = None
    schema_name: str | None = None


def subject_of(operation: Operation, find_span: FindSpan) -> Subject:
    """Tell what an operation is about; the finish of a span is about the span's instance and schema."""
    match operation.type:
        case OperationType.REGISTER_INSTANCE:
            return Subject(operation.type, _text(operation.fields.get("id")))
        case OperationType.CREATE_SPAN:
            details = _object(operation.fields.get("details"))
            instance_id, name = details.get("agent_instance_id"), details.get("schema_name")
            return Subject(operation.type, _text(instance_id), _text(name))
        case OperationType.FINISH_SPAN:
            span = find_span(operation.target) if isinstance(operation.target, str) else None
            if span is None:
                return Subject(operation.type)
            return Subject(operation.type, span.instance_id, span.schema_name)
        case _:
            return Subject(operation.type, _text(operation.target))


def subjects_of_request(path: str, body: bytes, find_span: FindSpan) -> list[Subject]:
    """Tell what a request's operations are about. What cannot be read is about nothing.

    Args:
        path: The request's path.
        body: Its body.
        find_span: Finds a span that exists already.
    """
    created: dict[str, Span] = {}
    found = []
    for operation in _operations(path, body):
        subject = subject_of(operation, lambda span_id: created.get(span_id) or find_span(span_id))
        found.append(subject)
        # A bulk request may finish what it creates, and then nothing is stored of it yet.
        span_id = _text(_object(operation.fields.get("details")).get("id"))
        if span_id and subject.instance_id and subject.schema_name:
            created[span_id] = Span(
                id=span_id,
                instance_id=subject.instance_id,
                parent_span_id=None,
                schema_name=subject.schema_name,
                status="",
                started_at=None,
                finished_at=None,
            )
    return found


def _operations(path: str, body: bytes) -> Iterator[Operation]:
    try:
        value = _object(from_json(body))
    except ValueError:
        return
    single = write_at(path)
    if path == API_PREFIX + BULK_PATH:
        items = value.get("items")
        for item in items if isinstance(items, list) else ():
            try:
                yield operation_from_item(_object(item))
            except Refusal:
                continue
    elif single is not None:
        operation_type, target = single
        try:
            yield operation_from_request(operation_type, target, value)
        except Refusal:
            return


def _object(value: object) -> JsonObject:
    return cast("JsonObject", value) if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
