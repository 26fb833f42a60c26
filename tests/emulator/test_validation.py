"""Which fields each write needs and what may stand in them."""

import pytest

from prefactor_emulator.ids import new_id
from prefactor_emulator.model import JsonObject, OperationType
from tests.emulator.driver import (
    CREATE,
    FINISH,
    FINISH_SPAN,
    NOW,
    QUALITY,
    REGISTER,
    START,
    Service,
    registration,
    span,
    without,
)

MISSING = object()
INSTANCE_FINISH: JsonObject = {"status": "complete", "timestamp": NOW}
SPAN_FINISH: JsonObject = {"status": "complete", "timestamp": NOW, "result_payload": {"a": 1}}
QUALITY_FIELDS: JsonObject = {"name": "accuracy", "payload": {"score": 1}}


def changed(fields: JsonObject, name: str, value: object) -> JsonObject:
    return without(fields, name) if value is MISSING else fields | {name: value}


@pytest.mark.parametrize(
    ("operation_type", "fields", "name", "value"),
    [
        (START, {"timestamp": NOW}, "timestamp", MISSING),
        (START, {"timestamp": NOW}, "timestamp", None),
        (START, {"timestamp": NOW}, "timestamp", "yesterday"),
        (START, {"timestamp": NOW}, "timestamp", "2026-03-01"),
        (START, {"timestamp": NOW}, "timestamp", "2026-03-01T10:00:00"),
        (START, {"timestamp": NOW}, "timestamp", 1772359200),
        (FINISH, INSTANCE_FINISH, "timestamp", MISSING),
        (FINISH, INSTANCE_FINISH, "status", MISSING),
        (FINISH, INSTANCE_FINISH, "status", "done"),
        (FINISH, INSTANCE_FINISH, "status", "active"),
        (FINISH, INSTANCE_FINISH, "status", "terminated"),
        (FINISH, INSTANCE_FINISH, "status", ["complete"]),
        (QUALITY, QUALITY_FIELDS, "name", MISSING),
        (QUALITY, QUALITY_FIELDS, "name", ""),
        (QUALITY, QUALITY_FIELDS, "payload", MISSING),
        (QUALITY, QUALITY_FIELDS, "payload", "high"),
        (FINISH_SPAN, SPAN_FINISH, "status", MISSING),
        (FINISH_SPAN, SPAN_FINISH, "status", "pending"),
        (FINISH_SPAN, SPAN_FINISH, "timestamp", MISSING),
        (FINISH_SPAN, SPAN_FINISH, "timestamp", "2026-13-01T10:00:00Z"),
        (FINISH_SPAN, SPAN_FINISH, "result_payload", [1]),
        (REGISTER, registration(), "agent_version", MISSING),
        (REGISTER, registration(), "agent_version", "v1"),
        (REGISTER, registration(), "agent_schema_version", MISSING),
        (REGISTER, registration(), "id", "not-a-pfid"),
        (REGISTER, registration(), "agent_id", "agent_1"),
        (REGISTER, registration(), "environment_id", "Z" * 32),
        (REGISTER, registration(), "purpose", "fun"),
        (REGISTER, registration(), "external_identifier", 7),
        (REGISTER, registration(), "update_current_version", "yes"),
    ],
)
def test_a_bad_field_is_named(
    service: Service, operation_type: OperationType, fields: JsonObject, name: str, value: object
) -> None:
    instance_id = service.instance("pending" if operation_type is START else "active")
    target = {REGISTER: None, FINISH_SPAN: None}.get(operation_type, instance_id)
    if operation_type is FINISH_SPAN:
        target = service.span(instance_id)
    refusal = service.refused(operation_type, target, changed(fields, name, value))
    assert (refusal.status, refusal.code) == (422, "validation_error")
    assert list(refusal.errors or {}) == [name]
    service.do(operation_type, target, fields)  # it was only that field


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("agent_instance_id", MISSING),
        ("agent_instance_id", "i-1"),
        ("schema_name", MISSING),
        ("schema_name", 5),
        ("schema_name", "unheard-of"),
        ("status", MISSING),
        ("status", "terminated"),
        ("payload", MISSING),
        ("payload", None),
        ("payload", "text"),
        ("id", "8" + "0" * 31),
        ("id", "0" * 31),
        ("id", "0" * 31 + "u"),
        ("parent_span_id", "0"),
        ("started_at", "noon"),
        ("finished_at", 0),
        ("result_payload", {"only": "when over"}),
    ],
)
def test_a_bad_field_of_a_span_is_named(service: Service, name: str, value: object) -> None:
    good = span(service.instance())
    details = good["details"]
    assert isinstance(details, dict)
    refusal = service.refused(CREATE, None, {"details": changed(details, name, value)})
    assert (refusal.status, refusal.code) == (422, "validation_error")
    assert list(refusal.errors or {}) == [f"details.{name}"]
    service.do(CREATE, None, good)


@pytest.mark.parametrize(
    ("version", "field"),
    [
        ({"external_identifier": "v"}, "agent_version.name"),
        ({"name": "n"}, "agent_version.external_identifier"),
        (
            {"name": "n", "external_identifier": "v", "runtime_environment": "linux"},
            "agent_version.runtime_environment",
        ),
    ],
)
def test_an_agent_version_is_checked(service: Service, version: JsonObject, field: str) -> None:
    refusal = service.refused(REGISTER, None, registration(agent_version=version))
    assert list(refusal.errors or {}) == [field]


@pytest.mark.parametrize(
    ("version", "field"),
    [
        ({}, "external_identifier"),
        ({"external_identifier": "s", "span_schemas": []}, "span_schemas"),
        ({"external_identifier": "s", "span_schemas": {"a": 1}}, "span_schemas.a"),
        ({"external_identifier": "s", "span_type_schemas": {}}, "span_type_schemas"),
        ({"external_identifier": "s", "span_type_schemas": [1]}, "span_type_schemas.0"),
        (
            {"external_identifier": "s", "span_type_schemas": [{"name": "a"}]},
            "span_type_schemas.0.params_schema",
        ),
        (
            {"external_identifier": "s", "quality_schemas": [{"schema": {}}]},
            "quality_schemas.0.name",
        ),
    ],
)
def test_a_schema_version_is_checked(service: Service, version: JsonObject, field: str) -> None:
    refusal = service.refused(REGISTER, None, registration(agent_schema_version=version))
    assert list(refusal.errors or {}) == [f"agent_schema_version.{field}"]


def test_all_bad_fields_are_named_at_once(service: Service) -> None:
    refusal = service.refused(CREATE, None, {"details": {"status": "odd", "id": 1}})
    assert refusal.body()["errors"] == {
        "details.agent_instance_id": ["is required"],
        "details.schema_name": ["is required"],
        "details.status": ["must be one of pending, active, complete, failed, cancelled"],
        "details.payload": ["is required"],
        "details.id": ["must be a PFID: 32 characters of lower-case base32"],
    }


@pytest.mark.parametrize("operation_type", [START, FINISH, QUALITY, FINISH_SPAN])
@pytest.mark.parametrize("target", [None, "nonsense", 5, "0" * 33])
def test_a_bad_target_is_named(service: Service, operation_type: OperationType, target: object) -> None:
    fields = SPAN_FINISH | QUALITY_FIELDS
    refusal = service.refused(operation_type, target, fields)
    assert refusal.status == 422
    of_span = operation_type is FINISH_SPAN
    assert list(refusal.errors or {}) == ["agent_span_id" if of_span else "agent_instance_id"]


@pytest.mark.parametrize("name", ["plain", "result-only", "typed"])
def test_every_kind_of_span_schema_gives_spans_their_names(service: Service, name: str) -> None:
    service.span(service.instance(), schema_name=name)


def test_schema_names_are_those_of_the_instance_own_version(service: Service) -> None:
    other: JsonObject = {"external_identifier": "s2", "span_schemas": {"newer": {}}}
    service.instance(fields=registration(agent_schema_version=other))
    refusal = service.refused(CREATE, None, span(service.instance(), schema_name="newer"))
    assert list(refusal.errors or {}) == ["details.schema_name"]


def test_optional_fields_may_be_null(service: Service) -> None:
    names = ("id", "parent_span_id", "started_at", "finished_at", "result_payload")
    service.span(service.instance(), **dict.fromkeys(names))


@pytest.mark.parametrize("status", ["complete", "failed", "cancelled"])
def test_a_span_created_over_may_bring_its_result(service: Service, status: str) -> None:
    span_id = service.span(service.instance(), status=status, result_payload={"r": 1})
    assert service.row("SELECT result_payload FROM spans WHERE id = ?", span_id) == (b'{"r":1}',)


def test_what_the_caller_did_not_name_gets_a_related_id(service: Service) -> None:
    agent_id = new_id()
    instance_id = service.instance(fields=registration(agent_id=agent_id))
    assert instance_id[10:16] == agent_id[10:16]
    assert service.span(instance_id)[10:16] == agent_id[10:16]


def test_a_number_beyond_all_numbers_is_refused(service: Service) -> None:
    fields = span(service.instance(), payload={"n": float("inf")})
    refusal = service.refused(CREATE, None, fields)
    assert (refusal.status, refusal.code) == (422, "validation_error")
