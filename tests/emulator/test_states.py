"""Which states follow which, and what has to exist first."""

import itertools
from typing import Any

import pytest

from prefactor_emulator.ids import new_id
from prefactor_emulator.model import JsonObject, OperationType
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
    TERMINATE,
    Api,
    Refused,
    Served,
    registration,
    span,
)

FINAL = ("complete", "failed", "cancelled")
INSTANCE_STATES = ("pending", "active", *FINAL, "terminated")


def invalid(refusal: Refused) -> bool:
    return (refusal.status, refusal.code) == (409, "invalid_action")


def stored(api: Api, instance_id: str) -> dict[str, Any]:
    """Return the last span of an instance."""
    return dict(api.look(f"instances/{instance_id}")["spans"][-1])


def test_only_a_pending_instance_starts(api: Api) -> None:
    for status in INSTANCE_STATES:
        instance_id = api.instance(status)
        if status == "pending":
            details = api.do(START, instance_id, {"timestamp": EARLIER})["details"]
            assert (details["status"], details["started_at"]) == ("active", EARLIER)
        else:
            assert invalid(api.refused(START, instance_id, {"timestamp": NOW})), status


def test_only_an_active_instance_finishes(api: Api) -> None:
    for status, outcome in itertools.product(INSTANCE_STATES, FINAL):
        instance_id = api.instance(status)
        fields: JsonObject = {"status": outcome, "timestamp": EARLIER}
        if status == "active":
            details = api.do(FINISH, instance_id, fields)["details"]
            assert (details["status"], details["finished_at"]) == (outcome, EARLIER)
        else:
            assert invalid(api.refused(FINISH, instance_id, fields)), (status, outcome)


def test_a_quality_is_recorded_in_any_state(api: Api) -> None:
    for status in INSTANCE_STATES:
        instance_id = api.instance(status)
        for payload in ({"n": 1}, {"n": 2}, None):
            api.do(QUALITY, instance_id, {"name": "accuracy", "payload": payload})
            kept = {} if payload is None else {"accuracy": payload}
            assert api.look(f"instances/{instance_id}")["quality"] == kept, status


def test_spans_are_created_before_the_finish(api: Api) -> None:
    for status in INSTANCE_STATES:
        instance_id = api.instance(status)
        if status in {"pending", "active", "terminated"}:
            api.do(CREATE, None, span(instance_id))
        else:
            assert invalid(api.refused(CREATE, None, span(instance_id))), status


def test_a_span_left_open_can_finish_after_its_instance(api: Api) -> None:
    for status in FINAL:
        instance_id = api.instance()
        span_id = api.span(instance_id)
        api.do(FINISH, instance_id, {"status": status, "timestamp": NOW})
        assert api.do(FINISH_SPAN, span_id, OVER)["details"]["status"] == OVER["status"]
        assert stored(api, instance_id)["status"] == OVER["status"]


def test_ways_of_a_span(api: Api) -> None:
    for status, outcome in itertools.product(("pending", "active", "complete", "failed"), FINAL):
        instance_id = api.instance()
        span_id = api.span(instance_id, status=status)
        fields: JsonObject = {"status": outcome, "timestamp": EARLIER, "result_payload": {"answer": 42}}
        if status == "active" or (status, outcome) == ("pending", "cancelled"):
            details = api.do(FINISH_SPAN, span_id, fields)["details"]
            assert (details["status"], details["finished_at"]) == (outcome, EARLIER)
            kept = stored(api, instance_id)
            assert (kept["status"], kept["result_payload"]) == (outcome, {"answer": 42})
        else:
            assert invalid(api.refused(FINISH_SPAN, span_id, fields)), (status, outcome)


def test_times_that_a_new_span_does_not_bring(api: Api) -> None:
    for status, has in (("pending", (False, False)), ("active", (True, False)), ("complete", (True, True))):
        details = api.do(CREATE, None, span(api.instance(), status=status))["details"]
        assert (details["started_at"] is not None, details["finished_at"] is not None) == has, status


def test_a_reply_says_what_was_stored(api: Api) -> None:
    instance_id = api.instance()
    parent_id, span_id = api.span(instance_id), new_id()
    fields = span(instance_id, id=span_id, parent_span_id=parent_id, started_at=EARLIER)
    details = api.do(CREATE, None, fields)["details"]
    run = api.get(f"agent_instance/{instance_id}").json()["details"]
    assert details == {
        "type": "agent_span",
        "id": span_id,
        "account_id": run["account_id"],
        "agent_id": run["agent_id"],
        "agent_instance_id": instance_id,
        "parent_span_id": parent_id,
        "schema_name": "plain",
        "schema_title": None,
        "status": "active",
        "payload": {"question": "why?"},
        "result_payload": None,
        "summary": None,
        "started_at": EARLIER,
        "inserted_at": details["inserted_at"],
        "updated_at": details["inserted_at"],
        "finished_at": None,
    }


def test_termination_closes_the_spans_in_flight_and_cannot_be_taken_back(api: Api) -> None:
    instance_id = api.instance()
    spans = [api.span(instance_id, status=status) for status in ("pending", "active", "complete")]
    details = api.do(TERMINATE, instance_id, {"reason": "too costly"})["details"]
    assert (details["status"], details["termination_reason"]) == ("terminated", "too costly")
    counts = {"total": 3, "active": 0, "complete": 1, "failed": 0, "cancelled": 2, "finished": 3}
    assert details["span_counts"] == counts
    for span_id in spans:
        assert invalid(api.refused(FINISH_SPAN, span_id, OVER))
    for operation_type in (START, FINISH, TERMINATE):
        assert invalid(api.refused(operation_type, instance_id, {}))
    for status in ("pending", *FINAL):
        assert invalid(api.refused(TERMINATE, api.instance(status), {})), status


def test_an_external_identifier_is_unique_among_an_agents_instances(api: Api) -> None:
    api.instance(fields=registration(external_identifier="job-7"))
    refusal = api.refused(REGISTER, None, registration(external_identifier="job-7"))
    assert (refusal.status, refusal.code) == (409, "conflict")
    api.instance(fields=registration(external_identifier="job-7", agent_id="another"))


def test_what_is_named_must_exist(api: Api) -> None:
    fields = OVER | {"name": "accuracy", "payload": {}}
    instance_id = api.instance()
    for operation_type, target, given in (
        *((operation_type, new_id(), fields) for operation_type in (START, FINISH, QUALITY, FINISH_SPAN)),
        (CREATE, None, span(new_id())),
        (CREATE, None, span(instance_id, parent_span_id=new_id())),
    ):
        refusal = api.refused(operation_type, target, given)
        assert (refusal.status, refusal.code) == (404, "not_found"), operation_type


def test_a_parent_belongs_to_the_same_instance(api: Api) -> None:
    stranger = api.span(api.instance())
    refusal = api.refused(CREATE, None, span(api.instance(), parent_span_id=stranger))
    assert (refusal.status, refusal.errors) == (422, ["details.parent_span_id"])


def test_a_taken_id_is_a_conflict_whoever_has_it(emulator: Served, api: Api) -> None:
    instance_id = api.instance()
    span_id = api.span(instance_id)
    with emulator.api() as stranger:
        for somebody in (api, stranger):
            refusal = somebody.refused(REGISTER, None, registration(id=instance_id))
            assert (refusal.status, refusal.code) == (409, "conflict")
    taken = span(instance_id, id=span_id)
    assert api.refused(CREATE, None, taken)[:2] == (409, "conflict")
    api.do(FINISH, instance_id, OVER)
    assert api.refused(CREATE, None, taken)[:2] == (409, "conflict"), "a repeat is told that it was done"


def test_what_belongs_to_another_account_is_not_there(emulator: Served, api: Api) -> None:
    instance_id = api.instance()
    span_id = api.span(instance_id)
    with emulator.api() as stranger:
        writes: list[tuple[OperationType, str | None, JsonObject]] = [
            (FINISH, instance_id, OVER),
            (CREATE, None, span(instance_id)),
            (FINISH_SPAN, span_id, OVER),
            (CREATE, None, span(stranger.instance(), parent_span_id=span_id)),
        ]
        for operation_type, target, fields in writes:
            assert stranger.refused(operation_type, target, fields).status == 404


def test_a_terminated_instance_takes_no_spans_where_that_is_strict() -> None:
    strict = Served("--strict-termination")
    with strict.api() as api:
        instance_id = api.instance("active")
        span_id = api.span(instance_id)
        assert api.terminate(instance_id).status_code == 200
        refusal = api.refused(CREATE, None, span(instance_id))
        assert (refusal.status, refusal.code) == (409, "invalid_action")
        assert api.refused(FINISH_SPAN, span_id, OVER).status == 409
    assert strict.end() == []


def test_what_is_over_is_not_terminated(api: Api) -> None:
    assert api.terminate(api.instance("complete")).status_code == 409
    assert api.terminate(new_id()).status_code == 409


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("agent_version", {"description": "changed"}),
        ("agent_schema_version", {"span_schemas": {"changed": {}}}),
    ],
)
def test_versions_never_change(api: Api, kind: str, change: JsonObject) -> None:
    api.instance()
    known = registration()[kind]
    assert isinstance(known, dict)
    other = known | change
    refusal = api.refused(REGISTER, None, registration(**{kind: other}))
    assert (refusal.status, refusal.code) == (422, "version_mismatch")
    assert refusal.errors == [f"{kind}.external_identifier"]
    api.instance(fields=registration(**{kind: other | {"external_identifier": "another"}}))
    api.instance(fields=registration(**{kind: other}, agent_id=new_id()))
    api.instance(fields=registration(**{kind: other}, agent_id="another of the same versions"))
    api.instance(fields=registration(update_current_version=True))


def test_a_version_does_not_depend_on_where_its_instances_run(api: Api) -> None:
    for runtime in ("cpython@3.11", "cpython@3.13"):
        version = {"external_identifier": "v1", "name": "Reader", "runtime_environment": {"runtime": runtime}}
        api.instance(fields=registration(agent_version=version))
