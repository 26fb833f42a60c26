"""What holds of every request: the token, the body, the routes, the shape of replies."""

import itertools
from typing import Any

import pytest

from prefactor_emulator.ids import new_id
from tests.emulator.driver import (
    FINISH,
    FINISH_SPAN,
    NOW,
    OVER,
    REGISTER,
    START,
    Api,
    Served,
    registration,
)


def test_a_token_is_needed(api: Api) -> None:
    del api.headers["authorization"]
    requests = [("GET", "ping"), ("POST", "bulk"), ("POST", "agent_spans"), ("GET", "agent_instance/x")]
    for (method, path), header in itertools.product(requests, [None, "", "Bearer", "Basic abc", "abc"]):
        headers = {} if header is None else {"Authorization": header}
        response = api.request(method, path, headers=headers)
        assert response.status_code == 401, (path, header)
        assert response.json() == {
            "status": "error",
            "code": "unauthorized",
            "message": "send the header Authorization: Bearer TOKEN",
        }


def test_a_body_must_be_a_json_object(api: Api) -> None:
    no_objects = [b"", b"{", b"[]", b"7", b'"text"', b"null", b"\xff", b'{"a": NaN}', b'{"a": "\\ud800"}']
    for content, path in itertools.product([*no_objects, b"[" * 10_000], ("agent_spans", "bulk")):
        response = api.post(path, content=content)
        assert response.status_code == 400, (path, content[:20])
        assert response.json()["code"] == "bad_request"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/v1/nothing", 404, "not_found"),
        ("POST", "/api/v2/bulk", 404, "not_found"),
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/api/v1/ping/", 404, "not_found"),
        ("GET", "/api/v1/bulk", 405, "method_not_allowed"),
        ("POST", "/api/v1/ping", 405, "method_not_allowed"),
        ("DELETE", "/api/v1/agent_spans", 405, "method_not_allowed"),
        ("GET", "/emulator/instances/none", 404, "not_found"),
        ("GET", "/emulator/effects?after=x", 422, "validation_error"),
    ],
)
def test_unknown_routes_answer_like_the_rest(
    api: Api, method: str, path: str, status: int, code: str
) -> None:
    response = api.request(method, api.root + path)
    assert response.status_code == status
    assert (response.json()["status"], response.json()["code"]) == ("error", code)
    assert response.headers["content-type"] == "application/json"


def test_an_instance_through_its_life(api: Api) -> None:
    reply = api.write(REGISTER, None, registration()).json()
    assert reply["status"] == "success"
    instance_id = reply["details"]["id"]
    assert api.get(f"agent_instance/{instance_id}").json() == reply
    started = api.write(START, instance_id, {"timestamp": NOW}).json()
    changes = {"status": "active", "started_at": NOW, "updated_at": started["details"]["updated_at"]}
    assert started["details"] == reply["details"] | changes
    over = api.write(FINISH, instance_id, {"status": "failed", "timestamp": NOW}).json()
    changes = {"status": "failed", "finished_at": NOW, "updated_at": over["details"]["updated_at"]}
    assert over["details"] == started["details"] | changes
    assert api.get(f"agent_instance/{instance_id}").json() == over


def test_reading_an_instance_of_somebody_else_or_of_nobody(emulator: Served, api: Api) -> None:
    instance_id = api.instance()
    with emulator.api() as stranger:
        for missing in (instance_id, new_id(), "nonsense"):
            response = stranger.get(f"agent_instance/{missing}")
            assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_a_flat_span_finish_stores_its_result_and_a_wrapped_one_silently_none(api: Api) -> None:
    instance_id = api.instance()
    result = {"result_payload": {"a": [1, None]}}
    wrapped: list[tuple[dict[str, Any], str]] = [
        ({}, "complete"),
        ({"status": "failed", **result}, "failed"),
        ({"status": "cancelled", "timestamp": NOW}, "cancelled"),
    ]
    for details, status in wrapped:
        response = api.write(FINISH_SPAN, api.span(instance_id), {"details": details})
        assert response.status_code == 200
        finished_at = response.json()["details"]["finished_at"]
        assert finished_at == details.get("timestamp", finished_at)
        stored = api.look(f"instances/{instance_id}")["spans"][-1]
        assert (stored["status"], stored["finished_at"]) == (status, finished_at)
        assert stored["result_payload"] is None
    api.write(FINISH_SPAN, api.span(instance_id), OVER | result)
    assert api.look(f"instances/{instance_id}")["spans"][-1]["result_payload"] == {"a": [1, None]}
