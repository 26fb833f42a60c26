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
    Api,
    Service,
    bulk_item,
    new_key,
    registration,
    span,
)

LATER: JsonObject = {"timestamp": "2026-03-01T11:00:00Z"}


@pytest.fixture
def cases(service: Service) -> dict[OperationType, tuple[str | None, JsonObject, JsonObject]]:
    """A write of each type, and another body that would be as acceptable."""
    instance_id = service.instance()
    span_id = service.span(instance_id)
    return {
        REGISTER: (None, registration(), registration(purpose="eval")),
        START: (service.instance("pending"), {"timestamp": NOW}, LATER),
        FINISH: (service.instance(), OVER, OVER | LATER),
        QUALITY: (instance_id, {"name": "q", "payload": {"n": 1}}, {"name": "q", "payload": None}),
        CREATE: (None, span(instance_id), span(instance_id, payload={"n": 1.0})),
        FINISH_SPAN: (span_id, OVER, OVER | {"result_payload": {}}),
    }


@pytest.mark.parametrize("operation_type", list(OperationType))
def test_a_repeat_gets_the_first_reply_and_does_nothing(
    service: Service,
    cases: dict[OperationType, tuple[str | None, JsonObject, JsonObject]],
    operation_type: OperationType,
) -> None:
    target, fields, other = cases[operation_type]
    key = new_key()
    first = service.do(operation_type, target, fields, key)
    before = service.dump()
    reordered = dict(reversed(fields.items()))
    assert service.do(operation_type, target, reordered, key) == first
    assert service.dump() == before
    refusal = service.refused(operation_type, target, other, key)
    assert (refusal.status, refusal.code) == (422, "idempotency_key_reused")


def test_the_target_and_the_type_belong_to_the_body(service: Service) -> None:
    key = new_key()
    first, second = service.instance(), service.instance()
    service.do(FINISH, first, OVER, key)
    for operation_type, target in ((FINISH, second), (START, first)):
        refusal = service.refused(operation_type, target, OVER, key)
        assert refusal.code == "idempotency_key_reused"


def test_values_that_python_or_luck_may_take_for_equal(service: Service) -> None:
    instance_id = service.instance()
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
        service.do(CREATE, None, span(instance_id, payload={"v": value}), key)
        refusal = service.refused(CREATE, None, span(instance_id, payload={"v": other}), key)
        assert refusal.code == "idempotency_key_reused", (value, other)


def test_a_repeat_is_answered_whatever_came_since(service: Service) -> None:
    instance_id, key = service.instance(), new_key()
    first = service.do(CREATE, None, span(instance_id), key)
    service.do(FINISH, instance_id, OVER)
    assert service.do(CREATE, None, span(instance_id), key) == first


def test_only_successes_are_remembered(service: Service) -> None:
    key, instance_id = new_key(), new_id()
    assert service.refused(START, instance_id, {"timestamp": NOW}, key).status == 404
    service.do(REGISTER, None, registration(id=instance_id), new_key())
    service.do(START, instance_id, {"timestamp": NOW}, key)
    refusal = service.refused(FINISH, instance_id, {"status": "odd"}, "key-of-a-bad-body")
    assert refusal.status == 422
    service.do(FINISH, instance_id, OVER, "key-of-a-bad-body")


def test_keys_of_accounts_are_apart(service: Service) -> None:
    key = new_key()
    mine = service.do(REGISTER, None, registration(), key)
    theirs = service.do(REGISTER, None, registration(purpose="live"), key, account="account-2")
    assert mine["details"]["id"] != theirs["details"]["id"]


def test_expired_keys_leave_ids_and_states_to_tell_a_repeat(service: Service) -> None:
    instance_id, span_id = new_id(), new_id()
    writes: list[tuple[OperationType, str | None, JsonObject, str]] = [
        (REGISTER, None, registration(id=instance_id), "conflict"),
        (START, instance_id, {"timestamp": NOW}, "invalid_action"),
        (CREATE, None, span(instance_id, id=span_id), "conflict"),
        (FINISH_SPAN, span_id, OVER, "invalid_action"),
        (FINISH, instance_id, OVER, "invalid_action"),
    ]
    keys = [new_key() for _ in writes]
    for (operation_type, target, fields, _), key in zip(writes, keys, strict=True):
        service.do(operation_type, target, fields, key)
    service.store.forget_keys()
    for (operation_type, target, fields, code), key in zip(writes, keys, strict=True):
        refusal = service.refused(operation_type, target, fields, key)
        assert (refusal.status, refusal.code) == (409, code)


def test_a_key_is_a_string_of_8_to_64_characters(api: Api) -> None:
    for key in ("", "k" * 7, "k" * 65, None, 12345678, ["12345678"]):
        response = api.write(REGISTER, None, registration() | {"idempotency_key": key})
        assert (response.status_code, response.json()["code"]) == (422, "validation_error"), key
        assert list(response.json()["errors"]) == ["idempotency_key"], key
    for length in (8, 64):
        assert api.write(REGISTER, None, registration(), "k" * length).status_code == 200


def test_the_key_stands_at_the_top_of_the_body(api: Api) -> None:
    fields = span(api.instance(), idempotency_key="inside-details")
    response = api.post("agent_spans", json=fields)
    assert list(response.json()["errors"]) == ["idempotency_key"]


@pytest.mark.parametrize("operation_type", list(OperationType))
def test_single_and_bulk_are_the_same_request(api: Api, operation_type: OperationType) -> None:
    instance_id = api.instance()
    span_id = api.span(instance_id)
    pending = api.write(REGISTER, None, registration()).json()["details"]["id"]
    cases: dict[OperationType, tuple[str | None, JsonObject]] = {
        REGISTER: (None, registration()),
        START: (pending, {"timestamp": NOW}),
        FINISH: (instance_id, OVER),
        QUALITY: (instance_id, {"name": "q", "payload": {"n": 1}}),
        CREATE: (None, span(instance_id)),
        FINISH_SPAN: (span_id, OVER),
    }
    target, fields = cases[operation_type]
    alone_first, bulk_first = new_key(), new_key()

    alone = api.write(operation_type, target, fields, alone_first).json()
    outputs = api.bulk(bulk_item(operation_type, target, fields, alone_first))
    assert outputs == {alone_first: alone}
    other = bulk_item(operation_type, target, fields | {"more": 1}, alone_first)
    assert api.bulk(other)[alone_first]["code"] == "idempotency_key_reused"

    if operation_type in {REGISTER, CREATE, QUALITY}:
        outputs = api.bulk(bulk_item(operation_type, target, fields, bulk_first))
        again = api.write(operation_type, target, fields, bulk_first)
        assert outputs == {bulk_first: again.json()}
