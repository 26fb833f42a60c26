"""Agents: made by hand or by the first registration that names them; deployments; and lists."""

from collections.abc import Iterator
from typing import Any

import pytest

from prefactor_emulator.ids import new_id
from prefactor_emulator.model import JsonObject
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
    Served,
    bulk_item,
    new_key,
    registration,
    span,
    without,
)
from tests.support.emulator import mistakes_of


def made(api: Api, **details: object) -> dict[str, Any]:
    response = api.post("agent", json={"details": details})
    assert response.is_success, response.text
    return dict(response.json()["details"])


def agent_of(api: Api, **fields: object) -> str:
    return str(api.do(REGISTER, None, registration(**fields))["details"]["agent_id"])


def test_an_agent_through_its_life(api: Api) -> None:
    agent = made(api, name="Reader", external_identifier="r-1", team_id="t")
    path = f"agent/{agent['id']}"
    assert (agent["type"], agent["status"], agent["team_id"]) == ("agent", "pending", "t")
    assert api.get(path).json()["details"] == agent
    changed = api.put(path, json={"details": {"name": "Writer", "external_identifier": "r-2"}}).json()[
        "details"
    ]
    assert (changed["name"], changed["external_identifier"]) == ("Writer", "r-1"), "the one stays"
    instance_id = api.do(REGISTER, None, registration(agent_id=agent["id"]))["details"]["id"]
    found = api.get(path).json()["details"]
    assert (found["status"], found["instance_counts"]["total"], found["instance_counts"]["pending"]) == (
        "active",
        1,
        1,
    )
    assert found["available_actions"] == {"update": True, "retire": True, "reinstate": False, "delete": False}
    assert api.delete(path).status_code == 409
    retired = api.post(f"{path}/retire").json()["details"]
    assert (retired["status"], retired["available_actions"]["reinstate"]) == ("retired", True)
    assert api.post(f"{path}/retire").status_code == 409
    assert api.put(path, json={"details": {}}).status_code == 409
    again = registration(agent_id=agent["id"])
    assert api.refused(REGISTER, None, again).code == "invalid_action"
    assert api.refused(REGISTER, None, again | {"id": instance_id}).code == "conflict", "it was done before"
    assert api.post(f"{path}/reinstate").json()["details"]["status"] == "active"
    other = made(api, name="Passing")
    assert api.delete(f"agent/{other['id']}").json()["details"]["id"] == other["id"]
    assert api.get(f"agent/{other['id']}").status_code == 404


def test_what_is_taken_is_a_conflict_and_a_key_is_remembered(api: Api) -> None:
    agent_id, key = new_id(), new_key()
    body = {"idempotency_key": key, "details": {"name": "A", "id": agent_id, "external_identifier": "a"}}
    first = api.post("agent", json=body)
    assert api.post("agent", json=body).json() == first.json()
    other = body | {"details": {"name": "B"}}
    assert api.post("agent", json=other).json()["code"] == "idempotency_key_reused"
    for details in ({"name": "A", "id": agent_id}, {"name": "A", "external_identifier": "a"}):
        assert api.post("agent", json={"details": details}).json()["code"] == "conflict"
    change = {"idempotency_key": new_key(), "details": {"description": None}}
    assert api.put(f"agent/{agent_id}", json=change).is_success
    other = api.put(f"agent/{agent_id}", json=change | {"details": {}}).json()
    assert other["code"] == "idempotency_key_reused"
    inside = {"details": {"name": "C", "idempotency_key": new_key()}}
    assert api.post("agent", json=inside).json() == api.post("agent", json=inside).json()
    retire = {"idempotency_key": new_key()}
    replies = [api.post(f"agent/{agent_id}/retire", json=retire).json() for _ in range(2)]
    assert replies[0] == replies[1]


def test_registrations_make_an_agent_for_each_name(api: Api) -> None:
    given, unnamed = new_id(), without(registration(), "agent_id")
    assert agent_of(api, agent_id="one") == agent_of(api, agent_id="one") != agent_of(api, agent_id="two")
    assert agent_of(api, agent_id=given) == given
    by_version = {
        str(api.do(REGISTER, None, unnamed | {"agent_version": version})["details"]["agent_id"])
        for version in (
            {"name": "A", "external_identifier": "1.0.0"},
            {"name": "B", "external_identifier": "1.0.0"},
            {},
        )
    }
    assert len(by_version) == 3
    names = {each["name"] for each in api.get("agent").json()["summaries"]}
    assert names == {"one", "two", "Reader", "A", "B", "agent"}


def test_environments_and_deployments_have_ids_of_their_own(api: Api) -> None:
    environment = new_id()
    seen = [
        api.do(REGISTER, None, registration(environment_id=each))["details"]
        for each in (None, "staging", environment, environment)
    ]
    assert (
        len({each["environment_id"] for each in seen})
        == len({each["agent_deployment_id"] for each in seen})
        == 3
    )
    assert seen[-1]["environment_id"] == environment
    assert len({each["account_id"] for each in seen}) == 1


def test_agents_are_found_by_id_or_external_identifier(api: Api) -> None:
    agent = made(api, name="Known", external_identifier="known")
    environment = api.do(REGISTER, None, registration(agent_id=agent["id"]))["details"]["environment_id"]
    for query in ({"agent_id": agent["id"]}, {"external_identifier": "known"}):
        found = api.get("agent/show", params=query).json()["details"]
        assert (found["id"], found["instance_counts"]) == (agent["id"], None)
    counted = {"agent_id": agent["id"], "include_counts": "true"}
    for where, total in ((environment, 1), (new_id(), 0)):
        found = api.get("agent/show", params=counted | {"environment_id": where}).json()["details"]
        assert found["instance_counts"]["total"] == total
    both: dict[str, str] = {"agent_id": agent["id"], "external_identifier": "known"}
    for query in (both, {}):
        assert api.get("agent/show", params=query).status_code == 422
    assert api.get("agent/show", params={"external_identifier": "unknown"}).status_code == 404


def test_lists_come_in_pages(api: Api) -> None:
    for number in range(5):
        made(api, name=f"agent {number}", team_id="odd" if number % 2 else "even")
    page: dict[str, str | int] = {"pagination[page_size]": 2, "pagination[offset]": 2, "sorting": "-name"}
    reply = api.get("agent", params=page).json()
    assert [each["name"] for each in reply["summaries"]] == ["agent 2", "agent 1"]
    assert reply["sorting"] == {"field": "name", "direction": "desc"}
    assert reply["pagination"] == {
        "item_count": 5,
        "item_start": 3,
        "item_end": 4,
        "page_count": 3,
        "page_index": 1,
        "page_offset": 2,
        "page_size": 2,
        "next_page_offset": 4,
        "previous_page_offset": 0,
    }
    assert api.get("agent", params={"team_id": "odd"}).json()["pagination"]["item_count"] == 2
    beyond = api.get("agent", params={"pagination[offset]": 9}).json()["pagination"]
    assert (beyond["item_count"], beyond["item_start"], beyond["item_end"]) == (5, 0, 0)
    for wrong in ({"pagination[page_size]": 101}, {"pagination[page_size]": 0}, {"sorting": "size"}):
        assert api.get("agent", params=wrong).status_code == 422


def test_instances_and_spans_are_listed_by_time(api: Api) -> None:
    instance_id, other = api.instance(), api.instance()
    for hour in range(3):
        api.do(CREATE, None, span(instance_id, started_at=f"2026-03-01T1{hour}:00:00Z"))
    api.span(other)
    listed = api.get("agent_instance").json()
    assert [each["id"] for each in listed["summaries"]] == [other, instance_id]
    assert listed["summaries"][1]["span_counts"]["total"] == 3
    query = {"agent_instance_id": instance_id, "start_time": NOW, "end_time": "2026-03-01T12:00:00"}
    found = api.get("agent_spans", params=query).json()["summaries"]
    assert [each["started_at"][11:13] for each in found] == ["10", "11"]
    assert api.get("agent_spans").json()["pagination"]["item_count"] == 4
    assert api.get("agent_spans", params={"agent_instance_id": new_id()}).json()["summaries"] == []


def test_lists_show_only_the_own_account(emulator: Served, api: Api) -> None:
    agent = made(api, name="mine", external_identifier="same")
    api.span(api.instance())
    with emulator.api() as stranger:
        for path in ("agent", "agent_instance", "agent_spans"):
            assert stranger.get(path).json()["summaries"] == []
        for path in (f"agent/{agent['id']}", "agent/show?external_identifier=same"):
            assert stranger.get(path).status_code == 404
        assert made(stranger, name="mine", external_identifier="same")["id"] != agent["id"]


def test_new_ids_are_of_the_account(api: Api) -> None:
    account_id = api.do(REGISTER, None, registration())["details"]["account_id"]
    pfids = api.post("pfid/generate", json={"count": 3}).json()["details"]["pfids"]
    assert len(set(pfids)) == 3
    assert {each[10:16] for each in pfids} == {account_id[10:16]}
    assert len(api.post("pfid/generate", json={}).json()["details"]["pfids"]) == 1
    assert api.post("pfid/generate", json={"count": 0}).status_code == 422


@pytest.fixture
def deployed() -> Iterator[Served]:
    served = Served("--account", "acme=owner", "--deployment", "support=d-1", "--deployment", "sales=d-2")
    yield served
    assert mistakes_of(served.end()) == []


def test_keys_of_deployments_are_apart(deployed: Served) -> None:
    key, body = new_key(), registration()
    replies = []
    for token in ("d-1", "d-2", "owner"):
        with deployed.api(token) as api:
            replies.append(api.do(REGISTER, None, body, key)["details"])
            assert api.do(REGISTER, None, body, key)["details"] == replies[-1]
    assert len({each["id"] for each in replies}) == len({each["agent_id"] for each in replies}) == 3


def test_a_deployments_token_brings_agent_and_environment_and_reads_nothing(deployed: Served) -> None:
    with deployed.api("d-1") as api, deployed.api("d-2") as other, deployed.api("owner") as owner:
        registered = [
            each.do(REGISTER, None, registration(agent_id="another", environment_id="other"))["details"]
            for each in (api, api, other)
        ]
        assert [each["agent_id"] == registered[0]["agent_id"] for each in registered] == [True, True, False]
        assert len({each["environment_id"] for each in registered}) == 2
        agent = owner.get(f"agent/{registered[0]['agent_id']}").json()["details"]
        assert (agent["name"], agent["instance_counts"]["total"]) == ("support", 2)
        instance_id = registered[0]["id"]
        assert api.get("ping").is_success
        api.do(START, instance_id, {})
        api.do(FINISH_SPAN, api.span(instance_id), OVER)
        for path in (f"agent_instance/{instance_id}", "agent_instance", "agent_spans", "agent"):
            response = api.get(path)
            assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
        assert api.post("agent", json={"details": {"name": "x"}}).status_code == 401
        quality: JsonObject = {"name": "q", "payload": {}}
        assert api.refused(QUALITY, instance_id, quality).status == 401
        outputs = api.bulk(bulk_item(QUALITY, instance_id, quality, "a-quality"))
        assert outputs["a-quality"]["code"] == "unauthorized"
        key = new_key()
        assert owner.do(QUALITY, instance_id, quality, key)["details"]["quality_payloads"] == {"q": {}}
        assert api.refused(QUALITY, instance_id, quality, key).status == 401, (
            "though the owner's key is known"
        )
        assert other.refused(FINISH, instance_id, OVER).status == 404, "another deployment's"
        assert api.do(FINISH, instance_id, OVER)["details"]["status"] == "complete"
