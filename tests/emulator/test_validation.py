"""Which fields each write needs and what may stand in them."""

import itertools
import json
from typing import Any

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
    TERMINATE,
    Api,
    bulk_item,
    new_key,
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


BAD_FIELDS: list[tuple[OperationType, JsonObject, str, list[object]]] = [
    (
        START,
        {"timestamp": NOW},
        "timestamp",
        ["yesterday", "0000-03-01T10:00:00Z", "0001-01-01T00:00:00+14:00", "", 1772359200],
    ),
    (FINISH, INSTANCE_FINISH, "status", ["done", "active", "terminated", ["complete"]]),
    (TERMINATE, {"reason": "why not"}, "reason", [7]),
    (QUALITY, QUALITY_FIELDS, "name", [MISSING, ""]),
    (QUALITY, QUALITY_FIELDS, "payload", ["high", [1]]),
    (FINISH_SPAN, SPAN_FINISH, "status", ["pending", ""]),
    (FINISH_SPAN, SPAN_FINISH, "timestamp", ["2026-13-01T10:00:00Z"]),
    (FINISH_SPAN, SPAN_FINISH, "result_payload", [[1]]),
    (REGISTER, registration(), "agent_version", [MISSING, "v1"]),
    (REGISTER, registration(), "agent_schema_version", ["s1"]),
    (REGISTER, registration(), "id", ["not-a-pfid"]),
    (REGISTER, registration(), "agent_id", ["", 7]),
    (REGISTER, registration(), "environment_id", ["", {}]),
    (REGISTER, registration(), "purpose", ["fun"]),
    (REGISTER, registration(), "external_identifier", [7]),
    (REGISTER, registration(), "update_current_version", ["yes"]),
]
BAD_FIELDS_OF_A_SPAN: dict[str, list[object]] = {
    "agent_instance_id": [MISSING, "i-1"],
    "schema_name": [MISSING, 5, ""],
    "status": [MISSING, "terminated", "cancelled", None],
    "payload": [MISSING, None, "text"],
    "id": ["8" + "0" * 31, "0" * 31, "0" * 31 + "u"],
    "parent_span_id": ["0"],
    "started_at": ["noon"],
    "finished_at": [0],
    "result_payload": ["text"],
    "sensitive_encoding": ["yes", 1],
}


def test_a_bad_field_is_named(api: Api, subtests: pytest.Subtests) -> None:
    for operation_type, fields, name, values in BAD_FIELDS:
        for value in values:
            with subtests.test(f"{operation_type}: {name} = {value!r}"):
                instance_id = api.instance("pending" if operation_type is START else "active")
                target: str | None = None if operation_type is REGISTER else instance_id
                if operation_type is FINISH_SPAN:
                    target = api.span(instance_id)
                refusal = api.refused(operation_type, target, changed(fields, name, value))
                assert (refusal.status, refusal.code) == (422, "validation_error")
                assert refusal.errors == [name]
                api.do(operation_type, target, fields)  # it was only that field


def test_a_bad_field_of_a_span_is_named(api: Api, subtests: pytest.Subtests) -> None:
    instance_id = api.instance()
    good = span(instance_id)
    details = good["details"]
    assert isinstance(details, dict)
    for name, values in BAD_FIELDS_OF_A_SPAN.items():
        for value in values:
            with subtests.test(f"{name} = {value!r}"):
                refusal = api.refused(CREATE, None, {"details": changed(details, name, value)})
                assert (refusal.status, refusal.code) == (422, "validation_error")
                assert refusal.errors == [f"details.{name}"]
                api.do(CREATE, None, good)


def test_versions_are_checked(api: Api, subtests: pytest.Subtests) -> None:
    named: JsonObject = {"name": "n", "external_identifier": "v"}
    schemas: JsonObject = {"external_identifier": "s"}
    rows: list[tuple[JsonObject, str]] = [
        (named | {"name": 7}, "agent_version.name"),
        (named | {"external_identifier": ""}, "agent_version.external_identifier"),
        (named | {"runtime_environment": "linux"}, "agent_version.runtime_environment"),
        (schemas | {"external_identifier": []}, "agent_schema_version.external_identifier"),
        (schemas | {"span_schemas": []}, "agent_schema_version.span_schemas"),
        (schemas | {"span_schemas": {"a": 1}}, "agent_schema_version.span_schemas.a"),
        (schemas | {"span_type_schemas": {}}, "agent_schema_version.span_type_schemas"),
        (schemas | {"quality_schemas": [{}] * 1001}, "agent_schema_version.quality_schemas"),
        (schemas | {"span_schemas": {str(n): {} for n in range(1001)}}, "agent_schema_version.span_schemas"),
        (schemas | {"span_type_schemas": [1]}, "agent_schema_version.span_type_schemas.0"),
        (
            schemas | {"span_type_schemas": [{"name": "a"}]},
            "agent_schema_version.span_type_schemas.0.params_schema",
        ),
        (schemas | {"quality_schemas": [{"schema": {}}]}, "agent_schema_version.quality_schemas.0.name"),
    ]
    for version, field in rows:
        with subtests.test(field):
            changes = {field.partition(".")[0]: version}
            refusal = api.refused(REGISTER, None, registration(**changes))
            assert refusal.errors == [field]


def test_all_bad_fields_are_named_at_once(api: Api) -> None:
    response = api.write(CREATE, None, {"details": {"status": "odd", "id": "1"}})
    assert response.json()["errors"] == {
        "details.agent_instance_id": ["is required"],
        "details.schema_name": ["is required"],
        "details.status": ["Input should be 'pending', 'active', 'complete' or 'failed'"],
        "details.payload": ["is required"],
        "details.id": ["must be a PFID: 32 characters of lower-case base32"],
    }


def test_a_bad_target_is_named(api: Api) -> None:
    targets: list[Any] = [None, "nonsense", 5, "0" * 33]
    for operation_type, target in itertools.product((START, FINISH, QUALITY, FINISH_SPAN), targets):
        fields = SPAN_FINISH | QUALITY_FIELDS
        (output,) = api.bulk(bulk_item(operation_type, target, fields, new_key())).values()
        name = "agent_span_id" if operation_type is FINISH_SPAN else "agent_instance_id"
        assert (output["code"], list(output["errors"])) == ("validation_error", [name])
        if isinstance(target, str):
            refusal = api.refused(operation_type, target, fields)
            assert refusal == (422, "validation_error", ["id"])


def test_all_but_a_little_may_be_left_out(api: Api) -> None:
    nothings: list[JsonObject] = [{}, {"timestamp": None}, {"timestamp": None, "status": None}]
    for nothing in nothings:
        instance_id = api.do(
            REGISTER, None, {"agent_version": {}, "agent_schema_version": None, "unheard-of": 1}
        )["details"]["id"]
        assert api.do(START, instance_id, nothing)["details"]["started_at"] is not None
        span_id = api.span(instance_id)
        assert api.do(FINISH_SPAN, span_id, nothing)["details"]["status"] == "complete"
        assert api.do(FINISH, instance_id, nothing)["details"]["status"] == "complete"


def test_a_time_without_an_offset_is_utc_and_all_are_told_in_utc(api: Api) -> None:
    for given, told in (
        ("2026-03-01T10:00:00", NOW),
        ("2026-03-01T12:00:00.000+02:00", NOW),
        ("2026-03-01", "2026-03-01T00:00:00.000000Z"),
    ):
        details = api.do(START, api.instance("pending"), {"timestamp": given})["details"]
        assert details["started_at"] == told


def test_optional_fields_may_be_null(api: Api) -> None:
    names = ("id", "parent_span_id", "started_at", "finished_at", "result_payload")
    api.span(api.instance(), **dict.fromkeys(names))


def test_a_span_created_over_may_bring_its_result(api: Api) -> None:
    instance_id = api.instance()
    for status in ("complete", "failed"):
        api.span(instance_id, status=status, result_payload={"r": 1}, finished_at=NOW)
    spans = api.look(f"instances/{instance_id}")["spans"]
    assert [found["result_payload"] for found in spans] == [{"r": 1}] * 2
    assert [found["finished_at"] for found in spans] == [NOW] * 2


def test_what_the_caller_did_not_name_gets_a_related_id(api: Api) -> None:
    agent_id = new_id()
    instance_id = api.instance(fields=registration(agent_id=agent_id))
    assert instance_id[10:16] == agent_id[10:16]
    assert api.span(instance_id)[10:16] == agent_id[10:16]


def test_a_number_beyond_all_numbers_is_refused(api: Api) -> None:
    body = {"idempotency_key": new_key(), **span(api.instance(), payload={"n": "huge"})}
    response = api.post("agent_spans", content=json.dumps(body).replace('"huge"', "1e999"))
    assert (response.status_code, response.json()["code"]) == (422, "validation_error")
