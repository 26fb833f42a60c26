"""The same key again: the first reply for the same request, a refusal for another."""

import pytest

from prefactor_emulator.ids import new_id
from prefactor_emulator.model import JsonObject, OperationType
from tests.emulator.driver import (
    CREATE,
    FINISH,
    FINISH_SPAN,
    NOW,
    OVER,
    QUALITY,
    REGISTER,
    START,
    TERMINATE,
    Api,
    Served,
    bulk_item,
    faults,
    new_key,
    registration,
    span,
)

LATER: JsonObject = {"timestamp": "2026-03-01T11:00:00Z"}


@pytest.mark.parametrize("operation_type", list(OperationType))
def test_a_repeat_gets_the_first_reply_and_does_nothing_alone_or_in_bulk(
    api: Api, operation_type: OperationType
) -> None:
    instance_id = api.instance()
    # A write of each type, and another body that would be as acceptable.
    cases: dict[OperationType, tuple[str | None, JsonObject, JsonObject]] = {
        REGISTER: (None, registration(), registration(purpose="eval")),
        START: (api.instance("pending"), {"timestamp": NOW}, LATER),
        FINISH: (api.instance(), OVER, OVER | LATER),
        QUALITY: (instance_id, {"name": "q", "payload": {"n": 1}}, {"name": "q", "payload": None}),
        CREATE: (None, span(instance_id), span(instance_id, payload={"n": 1.0})),
        FINISH_SPAN: (api.span(instance_id), OVER, OVER | {"result_payload": {}}),
        TERMINATE: (api.instance(), {"reason": "why"}, {"reason": None}),
    }
    target, fields, other = cases[operation_type]
    key = new_key()
    first = api.do(operation_type, target, fields, key)
    before = api.look("stats")["effects"]
    assert api.do(operation_type, target, dict(reversed(fields.items())), key) == first
    refusal = api.refused(operation_type, target, other, key)
    assert (refusal.status, refusal.code) == (422, "idempotency_key_reused")
    if operation_type is TERMINATE:  # not known in bulk
        assert api.bulk(bulk_item(operation_type, target, fields, key))[key]["code"] == "unknown_type"
        return
    assert api.bulk(bulk_item(operation_type, target, fields, key)) == {key: first}
    assert api.look("stats")["effects"] == before
    assert api.bulk(bulk_item(operation_type, target, other, key))[key]["code"] == "idempotency_key_reused"
    if operation_type in {REGISTER, CREATE, QUALITY}:
        outputs = api.bulk(bulk_item(operation_type, target, fields, key := new_key()))
        assert outputs == {key: api.do(operation_type, target, fields, key)}


def test_the_target_and_the_type_belong_to_the_body(api: Api) -> None:
    key = new_key()
    first, second = api.instance(), api.instance()
    api.do(FINISH, first, OVER, key)
    for operation_type, target in ((FINISH, second), (START, first)):
        assert api.refused(operation_type, target, OVER, key).code == "idempotency_key_reused"


def test_values_that_python_or_luck_may_take_for_equal(api: Api) -> None:
    instance_id = api.instance()
    pairs: list[tuple[object, object]] = [
        (1, 1.0),
        (1, True),
        (0, False),
        (None, {}),
        ("1", 1),
        ([1, 2], [2, 1]),
    ]
    for value, other in pairs:
        key = new_key()
        api.do(CREATE, None, span(instance_id, payload={"v": value}), key)
        refusal = api.refused(CREATE, None, span(instance_id, payload={"v": other}), key)
        assert refusal.code == "idempotency_key_reused", (value, other)


def test_a_repeat_is_answered_whatever_came_since(api: Api) -> None:
    instance_id, key = api.instance(), new_key()
    first = api.do(CREATE, None, span(instance_id), key)
    api.do(FINISH, instance_id, OVER)
    assert api.do(CREATE, None, span(instance_id), key) == first


def test_only_successes_are_remembered(api: Api) -> None:
    key, instance_id = new_key(), new_id()
    assert api.refused(START, instance_id, {"timestamp": NOW}, key).status == 404
    api.do(REGISTER, None, registration(id=instance_id))
    api.do(START, instance_id, {"timestamp": NOW}, key)
    assert api.refused(FINISH, instance_id, {"status": "odd"}, "key-of-a-bad-body").status == 422
    api.do(FINISH, instance_id, OVER, "key-of-a-bad-body")


def test_keys_of_accounts_are_apart(emulator: Served, api: Api) -> None:
    key = new_key()
    mine = api.do(REGISTER, None, registration(), key)
    with emulator.api() as stranger:
        theirs = stranger.do(REGISTER, None, registration(purpose="live"), key)
    assert mine["details"]["id"] != theirs["details"]["id"]


def test_expired_keys_leave_ids_and_states_to_tell_a_repeat(faulty: Served) -> None:
    instance_id, span_id = new_id(), new_id()
    writes: list[tuple[OperationType, str | None, JsonObject, str]] = [
        (REGISTER, None, registration(id=instance_id), "conflict"),
        (START, instance_id, {"timestamp": NOW}, "invalid_action"),
        (CREATE, None, span(instance_id, id=span_id), "conflict"),
        (FINISH_SPAN, span_id, OVER, "invalid_action"),
        (FINISH, instance_id, OVER, "invalid_action"),
    ]
    keys = [new_key() for _ in writes]
    with faulty.api() as api:
        for (operation_type, target, fields, _), key in zip(writes, keys, strict=True):
            api.do(operation_type, target, fields, key)
        with faults(api, "forget-keys"):
            for (operation_type, target, fields, code), key in zip(writes, keys, strict=True):
                refusal = api.refused(operation_type, target, fields, key)
                assert (refusal.status, refusal.code) == (409, code)


def test_a_key_has_64_characters_at_most_and_in_bulk_8_at_least(api: Api) -> None:
    for key in ("", "k" * 65, 12345678, ["12345678"]):
        response = api.write(REGISTER, None, registration() | {"idempotency_key": key})
        assert (response.status_code, response.json()["code"]) == (422, "validation_error"), key
        assert list(response.json()["errors"]) == ["idempotency_key"], key
    for key in ("k", "k" * 64):
        assert api.write(REGISTER, None, registration(), key).is_success
    for key in ("k" * 7, "k" * 65):
        output = api.bulk(bulk_item(REGISTER, None, registration(), key))[key]
        assert list(output["errors"]) == ["idempotency_key"]


def test_a_key_may_stand_in_the_details(api: Api) -> None:
    fields, key = span(api.instance(), idempotency_key=new_key()), new_key()
    first = api.post("agent_spans", json=fields).json()
    assert api.post("agent_spans", json=fields).json() == first
    span_id = first["details"]["id"]
    wrapped = {"details": {"status": "failed", "idempotency_key": key}}
    over = api.post(f"agent_spans/{span_id}/finish", json=wrapped).json()
    assert api.post(f"agent_spans/{span_id}/finish", json=wrapped).json() == over
    assert [effect["key"] for effect in api.effects(first["details"]["agent_instance_id"])[-1:]] == [key]


def test_without_a_key_every_request_is_one_of_its_own(api: Api) -> None:
    for body in (registration(), registration() | {"idempotency_key": None}):
        ids = [api.post("agent_instance/register", json=body).json()["details"]["id"] for _ in range(2)]
        assert ids[0] != ids[1]
        assert [effect["key"] for effect in api.effects(ids[1])] == [None]


def test_both_forms_of_a_span_are_the_same_in_bulk(api: Api) -> None:
    instance_id, key = api.instance(), new_key()
    nested = span(instance_id, id=new_id(), result_payload={"r": 1}, status="failed")
    details = nested["details"]
    assert isinstance(details, dict)
    flat: JsonObject = {"_type": CREATE, "idempotency_key": key, **details}
    first = api.bulk(flat)
    assert first[key]["details"]["payload"] == {"question": "why?"}
    assert api.bulk(bulk_item(CREATE, None, nested, key)) == first
