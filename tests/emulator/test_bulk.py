"""Many operations in one request: in order, each for itself, up to the first error."""

from typing import Any

import pytest

from prefactor_emulator.http.paths import MAX_BODY_BYTES
from prefactor_emulator.ids import new_id
from prefactor_emulator.model import JsonObject
from prefactor_emulator.requests import MAX_ITEMS
from tests.emulator.driver import (
    CREATE,
    FINISH,
    FINISH_SPAN,
    NOW,
    OVER,
    QUALITY,
    REGISTER,
    START,
    Api,
    bulk_item,
    new_key,
    registration,
    span,
)


def creation(instance_id: str, key: str | None = None, **changes: object) -> JsonObject:
    return bulk_item(CREATE, None, span(instance_id, **changes), key or new_key())


def test_a_whole_run_in_one_request(api: Api) -> None:
    instance_id, parent_id, child_id = new_id(), new_id(), new_id()
    result: JsonObject = {"result_payload": {"answer": 42}}
    items = [
        bulk_item(REGISTER, None, registration(id=instance_id), "register-1"),
        bulk_item(START, instance_id, {"timestamp": NOW}, "start-01"),
        bulk_item(CREATE, None, span(instance_id, id=parent_id), "parent-1"),
        bulk_item(CREATE, None, span(instance_id, id=child_id, parent_span_id=parent_id), "child-01"),
        bulk_item(FINISH_SPAN, child_id, OVER | result, "child-02"),
        bulk_item(FINISH_SPAN, parent_id, OVER, "parent-2"),
        bulk_item(QUALITY, instance_id, {"name": "q", "payload": {"n": 1}}, "quality-1"),
        bulk_item(FINISH, instance_id, OVER, "finish-1"),
    ]
    outputs = api.bulk(*items)
    assert list(outputs) == [item["idempotency_key"] for item in items]
    assert {output["status"] for output in outputs.values()} == {"success"}
    effects = api.effects(instance_id)
    assert [effect["key"] for effect in effects] == list(outputs)
    run = api.look(f"instances/{instance_id}")
    assert run["status"] == "complete"
    assert [found["result_payload"] for found in run["spans"]] == [None, {"answer": 42}]


@pytest.mark.parametrize("position", [0, 1, 2])
def test_the_first_error_stops_the_request(api: Api, position: int) -> None:
    instance_id = api.instance()
    keys = [f"item-number-{number}" for number in range(3)]
    items = [creation(instance_id, key) for key in keys]
    items[position] = creation(instance_id, keys[position], schema_name="")
    outputs = api.bulk(*items)
    assert list(outputs) == keys[: position + 1]
    *done, failed = outputs.values()
    assert all(output["status"] == "success" for output in done)
    assert (failed["status"], failed["code"]) == ("error", "validation_error")
    assert list(failed["errors"]) == ["details.schema_name"]
    effects = [effect["key"] for effect in api.effects(instance_id)[2:]]
    assert effects == keys[:position], "what came before the error stands, the rest was not reached"


@pytest.mark.parametrize(
    ("item", "code"),
    [
        (bulk_item(START, new_id(), {"timestamp": NOW}, new_key()), "not_found"),
        (bulk_item(START, None, {"timestamp": NOW}, new_key()), "validation_error"),
        (bulk_item(FINISH_SPAN, new_id(), OVER, new_key()), "not_found"),
        ({"_type": "agent_spans/paint", "idempotency_key": new_key()}, "unknown_type"),
        ({"_type": ["agent_spans/create"], "idempotency_key": new_key()}, "unknown_type"),
        ({"idempotency_key": new_key()}, "unknown_type"),
        (bulk_item(REGISTER, None, registration(), "short"), "validation_error"),
    ],
)
def test_errors_of_an_item_are_answered_under_its_key(api: Api, item: JsonObject, code: str) -> None:
    outputs = api.bulk(item)
    assert list(outputs) == [item["idempotency_key"]]
    assert next(iter(outputs.values()))["code"] == code


def test_a_request_that_is_no_bulk_request_is_refused_whole(api: Api, subtests: pytest.Subtests) -> None:
    too_many = [{"idempotency_key": f"key-{n:05}"} for n in range(MAX_ITEMS + 1)]
    bodies: list[tuple[dict[str, Any], str]] = [
        ({}, "items"),
        ({"items": {}}, "items"),
        ({"items": "all"}, "items"),
        ({"items": [7]}, "items.0"),
        ({"items": [{"_type": "agent_spans/create"}]}, "items.0.idempotency_key"),
        ({"items": [{"idempotency_key": 12345678}]}, "items.0.idempotency_key"),
        ({"items": [{"idempotency_key": "k" * 8}] * 2}, "items.1.idempotency_key"),
        ({"items": too_many}, "items"),
    ]
    for body, field in bodies:
        with subtests.test(f"{field} of {str(body)[:80]}"):
            response = api.post("bulk", json=body)
            assert response.status_code == 422
            assert response.json()["code"] == "validation_error"
            assert list(response.json()["errors"]) == [field]
    instance_id = api.instance()
    items = [creation(instance_id), creation(instance_id, "same-key"), creation(instance_id, "same-key")]
    assert api.post("bulk", json={"items": items}).status_code == 422
    assert len(api.effects(instance_id)) == 2, "nothing of it is done"


def test_as_many_items_as_are_allowed(api: Api) -> None:
    instance_id = api.instance()
    assert len(api.bulk(*(creation(instance_id) for _ in range(MAX_ITEMS)))) == MAX_ITEMS
    assert api.bulk() == {}


def test_a_body_too_large_and_one_just_small_enough(api: Api) -> None:
    instance_id = api.instance()
    fields = span(instance_id, payload={"text": "x" * MAX_BODY_BYTES})
    bodies = {"bulk": {"items": [fields]}, "agent_spans": {"idempotency_key": new_key(), **fields}}
    for path, body in bodies.items():
        response = api.post(path, json=body)
        assert response.status_code == 413
        assert response.json()["code"] == "payload_too_large"
        assert api.get("ping").is_success
    assert api.create(instance_id, payload={"text": "x" * (MAX_BODY_BYTES - 1000)}).is_success


def test_a_repeated_request_goes_on_where_it_stopped(api: Api) -> None:
    instance_id, missing = api.instance(), new_id()
    items = [
        creation(instance_id, "going-on-1"),
        creation(instance_id, "going-on-2", parent_span_id=missing),
        creation(instance_id, "going-on-3"),
    ]
    first = api.bulk(*items)
    assert first["going-on-2"]["code"] == "not_found"
    api.bulk(creation(instance_id, id=missing))
    again = api.bulk(*items)
    assert again["going-on-1"] == first["going-on-1"]
    assert [output["status"] for output in again.values()] == ["success"] * 3
    assert len(api.effects(instance_id)) == 2 + 4


def test_every_reply_to_a_write_of_a_span_carries_control_and_no_other_does(api: Api) -> None:
    instance_id, other_id = api.instance(), api.instance()
    span_id, fresh = new_id(), new_id()
    before = api.bulk(creation(instance_id, "before-the-end", id=span_id))
    assert "control" not in before["before-the-end"]
    assert api.terminate(instance_id).is_success
    outputs = api.bulk(
        creation(instance_id, "after-the-end", id=fresh),
        bulk_item(QUALITY, instance_id, {"name": "q", "payload": {}}, "quality-after"),
        creation(other_id, "beside-the-end"),
    )
    control = {"terminate": True, "reason": None}
    closed = api.bulk(bulk_item(FINISH_SPAN, span_id, OVER, "finish-after"))["finish-after"]
    assert (closed["code"], closed.get("control")) == ("invalid_action", None)
    assert [output.get("control") for output in outputs.values()] == [control, None, None]
    single = api.write(FINISH_SPAN, fresh, OVER).json()
    assert list(single) == ["status", "details", "control"]
    assert single["control"] == control
    details = api.get(f"agent_instance/{instance_id}").json()["details"]
    assert (details["status"], details["termination_reason"]) == ("terminated", None)
    assert api.terminate(instance_id).status_code == 409
    assert api.terminate(other_id, reason="too costly").is_success
    details = api.get(f"agent_instance/{other_id}").json()["details"]
    assert details["termination_reason"] == "too costly"


def test_an_item_that_is_refused_late_leaves_nothing(api: Api) -> None:
    api.instance()
    version: JsonObject = {"name": "Reader", "external_identifier": "v2"}
    changed: JsonObject = {"external_identifier": "s1", "span_schemas": {"changed": {}}}
    late = registration(agent_version=version, agent_schema_version=changed)
    output = api.bulk(bulk_item(REGISTER, None, late, "refused-late"))["refused-late"]
    assert output["code"] == "version_mismatch"
    other = registration(agent_version=version | {"name": "Writer"})
    assert api.write(REGISTER, None, other).is_success, "v2 was not registered on the way"
