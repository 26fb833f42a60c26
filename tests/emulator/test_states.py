"""Which states follow which, and what has to exist first."""

import itertools

import pytest

from prefactor_emulator.ids import new_id
from prefactor_emulator.model import JsonObject, OperationType, Refusal
from tests.emulator.driver import (
    CREATE,
    EARLIER,
    FINISH,
    FINISH_SPAN,
    NOW,
    OVER,
    QUALITY,
    REGISTER,
    START,
    Service,
    registration,
    span,
)

FINAL = ("complete", "failed", "cancelled")
INSTANCE_STATES = ("pending", "active", *FINAL, "terminated")


def invalid(refusal: Refusal) -> bool:
    return (refusal.status, refusal.code) == (409, "invalid_action")


def test_only_a_pending_instance_starts(service: Service) -> None:
    for status in INSTANCE_STATES:
        instance_id = service.instance(status)
        if status == "pending":
            details = service.do(START, instance_id, {"timestamp": EARLIER})["details"]
            assert (details["status"], details["started_at"]) == ("active", EARLIER)
        else:
            assert invalid(service.refused(START, instance_id, {"timestamp": NOW})), status


def test_only_an_active_instance_finishes(service: Service) -> None:
    for status, outcome in itertools.product(INSTANCE_STATES, FINAL):
        instance_id = service.instance(status)
        fields: JsonObject = {"status": outcome, "timestamp": EARLIER}
        if status == "active":
            details = service.do(FINISH, instance_id, fields)["details"]
            assert (details["status"], details["finished_at"]) == (outcome, EARLIER)
        else:
            assert invalid(service.refused(FINISH, instance_id, fields)), (status, outcome)


def test_a_quality_is_recorded_in_any_state(service: Service) -> None:
    statement = "SELECT payload FROM qualities WHERE instance_id = ?"
    for status in INSTANCE_STATES:
        instance_id = service.instance(status)
        for payload, kept in (({"n": 1}, (b'{"n":1}',)), ({"n": 2}, (b'{"n":2}',)), (None, None)):
            service.do(QUALITY, instance_id, {"name": "accuracy", "payload": payload})
            assert service.row(statement, instance_id) == kept, status


def test_spans_are_created_between_start_and_finish(service: Service) -> None:
    for status in INSTANCE_STATES:
        instance_id = service.instance(status)
        if status in {"active", "terminated"}:
            service.do(CREATE, None, span(instance_id))
        else:
            assert invalid(service.refused(CREATE, None, span(instance_id))), status


def test_a_span_left_open_can_finish_after_its_instance(service: Service) -> None:
    for status in FINAL:
        instance_id = service.instance()
        span_id = service.span(instance_id)
        service.do(FINISH, instance_id, {"status": status, "timestamp": NOW})
        assert service.do(FINISH_SPAN, span_id, OVER)["details"]["status"] == OVER["status"]
        assert service.row("SELECT status FROM spans WHERE id = ?", span_id) == (OVER["status"],)


def test_ways_of_a_span(service: Service) -> None:
    for status, outcome in itertools.product(("pending", "active", *FINAL), FINAL):
        span_id = service.span(service.instance(), status=status)
        fields: JsonObject = {"status": outcome, "timestamp": EARLIER, "result_payload": {"answer": 42}}
        if status == "active" or (status, outcome) == ("pending", "cancelled"):
            details = service.do(FINISH_SPAN, span_id, fields)["details"]
            assert (details["status"], details["finished_at"]) == (outcome, EARLIER)
            stored = service.row("SELECT status, result_payload FROM spans WHERE id = ?", span_id)
            assert stored == (outcome, b'{"answer":42}')
        else:
            assert invalid(service.refused(FINISH_SPAN, span_id, fields)), (status, outcome)


def test_times_that_a_new_span_does_not_bring(service: Service) -> None:
    for status, times in (("pending", (None, None)), ("active", (NOW, None)), ("complete", (NOW, NOW))):
        details = service.do(CREATE, None, span(service.instance(), status=status))["details"]
        assert (details["started_at"], details["finished_at"]) == times, status


def test_a_reply_says_what_was_stored_but_no_payload(service: Service) -> None:
    instance_id = service.instance()
    parent_id, span_id = service.span(instance_id), new_id()
    fields = span(instance_id, id=span_id, parent_span_id=parent_id, started_at=EARLIER)
    assert service.do(CREATE, None, fields) == {
        "status": "success",
        "details": {
            "id": span_id,
            "agent_instance_id": instance_id,
            "parent_span_id": parent_id,
            "schema_name": "plain",
            "status": "active",
            "started_at": EARLIER,
            "finished_at": None,
        },
    }


def test_what_is_named_must_exist(service: Service) -> None:
    fields = OVER | {"name": "accuracy", "payload": {}}
    instance_id = service.instance()
    for operation_type, target, given in (
        *((operation_type, new_id(), fields) for operation_type in (START, FINISH, QUALITY, FINISH_SPAN)),
        (CREATE, None, span(new_id())),
        (CREATE, None, span(instance_id, parent_span_id=new_id())),
    ):
        refusal = service.refused(operation_type, target, given)
        assert (refusal.status, refusal.code) == (404, "not_found"), operation_type


def test_a_parent_belongs_to_the_same_instance(service: Service) -> None:
    stranger = service.span(service.instance())
    refusal = service.refused(CREATE, None, span(service.instance(), parent_span_id=stranger))
    assert refusal.status == 422
    assert list(refusal.errors or {}) == ["details.parent_span_id"]


def test_a_taken_id_is_a_conflict_whoever_has_it(service: Service) -> None:
    instance_id = service.instance()
    span_id = service.span(instance_id)
    for account in ("account-1", "account-2"):
        refusal = service.refused(REGISTER, None, registration(id=instance_id), account=account)
        assert (refusal.status, refusal.code) == (409, "conflict")
    refusal = service.refused(CREATE, None, span(instance_id, id=span_id))
    assert (refusal.status, refusal.code) == (409, "conflict")
    service.do(FINISH, instance_id, OVER)
    refusal = service.refused(CREATE, None, span(instance_id, id=span_id))
    assert refusal.code == "conflict", "a repeat is told that it was done, whatever came since"


def test_what_belongs_to_another_account_is_not_there(service: Service) -> None:
    instance_id = service.instance()
    span_id = service.span(instance_id)
    writes: list[tuple[OperationType, str | None, JsonObject]] = [
        (FINISH, instance_id, OVER),
        (CREATE, None, span(instance_id)),
        (FINISH_SPAN, span_id, OVER),
    ]
    theirs = service.do(REGISTER, None, registration(), account="account-2")["details"]["id"]
    service.do(START, theirs, {"timestamp": NOW}, account="account-2")
    writes.append((CREATE, None, span(theirs, parent_span_id=span_id)))
    for operation_type, target, fields in writes:
        refusal = service.refused(operation_type, target, fields, account="account-2")
        assert refusal.status == 404


def test_a_terminated_instance_takes_spans_and_says_stop(service: Service) -> None:
    instance_id = service.instance()
    span_id = service.span(instance_id)
    assert service.store.terminate_instance(instance_id, "too costly")
    stop = {"terminate": True, "reason": "too costly"}
    assert service.do(CREATE, None, span(instance_id))["control"] == stop
    assert service.do(FINISH_SPAN, span_id, OVER)["control"] == stop
    quality = service.do(QUALITY, instance_id, {"name": "accuracy", "payload": {}})
    assert "control" not in quality


def test_what_is_over_is_not_terminated(service: Service) -> None:
    assert not service.store.terminate_instance(service.instance("complete"), "late")
    assert not service.store.terminate_instance(new_id(), "never was")


@pytest.mark.parametrize("kind", ["agent_version", "agent_schema_version"])
def test_versions_never_change(service: Service, kind: str) -> None:
    service.instance()
    known = registration()[kind]
    assert isinstance(known, dict)
    other = known | {"description": "changed"}
    refusal = service.refused(REGISTER, None, registration(**{kind: other}))
    assert (refusal.status, refusal.code) == (422, "version_mismatch")
    assert list(refusal.errors or {}) == [f"{kind}.external_identifier"]
    service.instance(fields=registration(**{kind: other | {"external_identifier": "another"}}))
    service.instance(fields=registration(**{kind: other}, agent_id=new_id()))
    service.instance(fields=registration(update_current_version=True))


def test_a_version_does_not_depend_on_where_its_instances_run(service: Service) -> None:
    for runtime in ("cpython@3.11", "cpython@3.13"):
        version = {"external_identifier": "v1", "name": "Reader", "runtime_environment": {"runtime": runtime}}
        service.instance(fields=registration(agent_version=version))
