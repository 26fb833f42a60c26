"""Looking at what happened: as JSON for checkers, as pages for people."""

from prefactor_emulator.ids import new_id
from tests.emulator.driver import (
    FINISH_SPAN,
    NOW,
    QUALITY,
    REGISTER,
    START,
    Api,
    Served,
    new_key,
    registration,
    without,
)


def test_instances_newest_first_with_their_spans_counted(api: Api) -> None:
    older, newer = api.instance(), api.instance()
    for status in ("active", "active", "failed"):
        api.create(older, status=status)
    listed = api.look("instances")["instances"]
    assert [instance["id"] for instance in listed[:2]] == [newer, older]
    assert listed[1]["spans"] == {"active": 2, "failed": 1}
    assert listed[1]["agent_version"] == "Reader"
    assert listed[1]["status"] == "active"
    assert listed[1]["started_at"] == NOW
    assert len(api.look("instances?limit=1")["instances"]) == 1


def test_a_run_with_everything_that_was_told_of_it(api: Api) -> None:
    fields = registration(purpose="eval", external_identifier="job-7")
    instance_id = api.write(REGISTER, None, fields).json()["details"]["id"]
    assert api.write(START, instance_id, {"timestamp": NOW}).is_success
    first, second = new_id(), new_id()
    api.create(instance_id, id=second, payload={"n": 1})
    api.create(instance_id, id=first, parent_span_id=second)
    over: dict[str, object] = {"status": "failed", "timestamp": NOW, "result_payload": {"e": "x"}}
    api.write(FINISH_SPAN, second, over)
    api.write(QUALITY, instance_id, {"name": "accuracy", "payload": {"score": 0.5}})
    run = api.look(f"instances/{instance_id}")
    assert run.items() >= without(fields, "agent_id").items()
    assert run["agent_name"] == "reader"
    assert run["quality"] == {"accuracy": {"score": 0.5}}
    assert [found["id"] for found in run["spans"]] == [second, first]
    assert (
        run["spans"][0].items()
        >= {
            "id": second,
            "parent_span_id": None,
            "schema_name": "plain",
            "status": "failed",
            "finished_at": NOW,
            "payload": {"n": 1},
            "result_payload": {"e": "x"},
            "flags": None,
        }.items()
    )
    assert run["spans"][1]["parent_span_id"] == second


def test_the_log_says_what_took_place_once_and_in_order(api: Api) -> None:
    last = api.look("effects?limit=100000")["effects"]
    after = last[-1]["seq"] if last else 0
    instance_id = api.instance()
    span_id, key = new_id(), new_key()
    for _ in range(2):
        assert api.create(instance_id, key, id=span_id).is_success
    assert api.create(instance_id, id=span_id).status_code == 409
    effects = api.look(f"effects?after={after}")["effects"]
    assert [effect["type"] for effect in effects] == [
        "agent_instances/register",
        "agent_instances/start",
        "agent_spans/create",
    ]
    assert [effect["seq"] for effect in effects] == [after + 1, after + 2, after + 3]
    assert {effect["instance_id"] for effect in effects} == {instance_id}
    assert [effect["span_id"] for effect in effects] == [None, None, span_id]
    assert effects[-1]["key"] == key
    assert len({effect["account"] for effect in effects}) == 1
    assert api.look(f"effects?after={after}&limit=2")["effects"] == effects[:2]
    assert api.look(f"effects?after={after + 3}")["effects"] == []


def test_statistics_count_effects_and_requests(api: Api) -> None:
    before = api.look("stats")
    instance_id = api.instance()
    api.create(instance_id)
    api.create(instance_id, payload=None)
    after = api.look("stats")
    assert after["requests"] - before["requests"] == 4
    assert after["effects"]["agent_spans/create"] - before["effects"].get("agent_spans/create", 0) == 1


def test_no_token_shows_anywhere(emulator: Served) -> None:
    with emulator.api("a-very-secret-token") as api:
        instance_id = api.instance()
        for path in ("emulator/instances", "emulator/effects", "", f"instances/{instance_id}"):
            assert "secret" not in api.get(f"{api.root}/{path}").text
        assert "secret" not in api.get(f"{api.root}/emulator/instances/{instance_id}").text
