"""What all calls of the published HTTP client share: tokens, keys, errors, and what it does about them."""

import re
from collections.abc import Awaitable, Callable
from inspect import getmembers, iscoroutinefunction
from pathlib import Path
from uuid import uuid4

import pytest
from prefactor_http import (
    HttpClientConfig,
    PrefactorApiError,
    PrefactorAuthError,
    PrefactorHttpClient,
    PrefactorNotFoundError,
    PrefactorResponseContractError,
    PrefactorRetryExhaustedError,
    PrefactorValidationError,
)
from prefactor_http.models.agent import AgentForCreate

from tests.peers.calling import SCHEMAS, VERSION, Keys, ids, misbehaving, registered, said, started
from tests.support.emulator import EmulatorThread

PARTS = ("agents", "agent_instances", "agent_spans", "bulk")
HERE = Path(__file__).parent


async def test_every_call_of_the_client_is_made_here(client: PrefactorHttpClient) -> None:
    text = "".join(path.read_text() for path in HERE.glob("*.py"))
    owners = {"client": client} | {f"client.{part}": getattr(client, part) for part in PARTS}
    for owner, its in owners.items():
        calls = {name for name, _ in getmembers(its, iscoroutinefunction) if name[0] != "_"} - {"close"}
        assert calls, f"{owner} has no calls"
        for call in calls:
            assert re.search(rf"\b{re.escape(owner)}\.{call}\b", text), f"{owner}.{call} is called nowhere"


async def test_a_token_is_checked(client: PrefactorHttpClient) -> None:
    assert (await client.validate_token())["status"] == "success"


async def test_a_token_that_is_not_known_is_refused_everywhere() -> None:
    async with misbehaving("--token", "another") as client:
        calls: list[Callable[[], Awaitable[object]]] = [
            client.validate_token,
            client.agents.list_agents,
            lambda: client.agents.create(AgentForCreate(name="Bookkeeper")),
            lambda: registered(client),
            lambda: client.agent_instances.get("x"),
            lambda: client.agent_spans.create("x", "plain", "active"),
            lambda: client.request("POST", "/api/v1/bulk", json_data={"items": []}),
        ]
        for call in calls:
            with pytest.raises(PrefactorAuthError) as refusal:
                await call()
            assert refusal.value.status_code == 401
            assert refusal.value.code in {"unauthorized", "bad_authtoken"}
            assert str(refusal.value)


async def test_what_does_not_exist_is_not_found(client: PrefactorHttpClient) -> None:
    (missing,) = await ids(client, 1)
    for path in ("nothing", f"agent_instance/{missing}", f"agent/{missing}", f"agent_spans/{missing}/finish"):
        with pytest.raises(PrefactorNotFoundError) as refusal:
            await client.request("POST" if "finish" in path else "GET", f"/api/v1/{path}", json_data={})
        assert said(refusal.value) == (404, "not_found")
        assert str(refusal.value)


async def test_a_conflict_says_which(client: PrefactorHttpClient) -> None:
    instance = await started(client)
    for call, code in (
        (registered(client, id=instance.id), "conflict"),
        (client.agent_instances.start(instance.id), "invalid_action"),
    ):
        with pytest.raises(PrefactorApiError) as refusal:
            await call
        assert said(refusal.value) == (409, code)
        assert str(refusal.value)


async def test_what_is_wrong_in_a_body_is_named(client: PrefactorHttpClient) -> None:
    instance = await started(client)
    for path, body in (
        ("agent_instance/register", {"agent_version": "books"}),
        (f"agent_instance/{instance.id}/finish", {"status": "sleeping"}),
        (f"agent_instance/{instance.id}/record_quality", {"payload": {}}),
        ("agent_spans", {"details": {"agent_instance_id": instance.id, "status": "active"}}),
        ("agent_spans", {"details": None}),
        ("agent", {"details": {}}),
    ):
        with pytest.raises(PrefactorValidationError) as refusal:
            await client.request("POST", f"/api/v1/{path}", json_data=body)
        assert refusal.value.status_code in {400, 422}
        assert refusal.value.code == "validation_error"
        assert refusal.value.errors
    assert (await client.agent_instances.get(instance.id)).status == "active"


async def test_unknown_fields_are_dropped(client: PrefactorHttpClient) -> None:
    body = {"agent_version": VERSION | {"mood": "good"}, "agent_schema_version": SCHEMAS, "mood": "good"}
    reply = await client.request("POST", "/api/v1/agent_instance/register", json_data=body)
    assert "mood" not in reply["details"]
    start = f"/api/v1/agent_instance/{reply['details']['id']}/start"
    assert (await client.request("POST", start, json_data={"mood": "good"}))["details"]["status"] == "active"


async def test_optional_fields_may_be_null(client: PrefactorHttpClient) -> None:
    async def post(path: str, *nulls: str, **fields: object) -> dict[str, object]:
        body = dict.fromkeys((*nulls, "idempotency_key")) | fields
        reply: dict[str, dict[str, object]] = await client.request("POST", f"/api/v1/{path}", json_data=body)
        return reply["details"]

    version = dict.fromkeys(("name", "description", "runtime_environment")) | {"external_identifier": "books"}
    options = ("agent_id", "environment_id", "id", "external_identifier", "purpose", "update_current_version")
    instance = await post(
        "agent_instance/register", *options, agent_version=version, agent_schema_version=SCHEMAS
    )
    assert (instance["status"], instance["purpose"]) == ("pending", "live")
    await post(f"agent_instance/{instance['id']}/start", "timestamp")
    span_options = (
        "id",
        "parent_span_id",
        "started_at",
        "finished_at",
        "result_payload",
        "sensitive_encoding",
    )
    details = dict.fromkeys(span_options) | {
        "agent_instance_id": instance["id"],
        "schema_name": "plain",
        "status": "active",
        "payload": {},
    }
    span = await post("agent_spans", details=details)
    over = await post(
        f"agent_spans/{span['id']}/finish", "status", "timestamp", "result_payload", "sensitive_encoding"
    )
    assert (over["status"], over["result_payload"]) == ("complete", None)
    over = await post(f"agent_instance/{instance['id']}/finish", "status", "timestamp")
    assert over["status"] == "complete"


async def test_another_body_under_a_key_is_refused(client: PrefactorHttpClient) -> None:
    instance = await registered(client, idempotency_key="1")
    with pytest.raises(PrefactorValidationError) as refusal:
        await registered(client, idempotency_key="1", purpose="eval")
    assert refusal.value.status_code == 422
    assert (await client.agent_instances.get(instance.id)).purpose == "live"


async def test_the_longest_key_is_taken(client: PrefactorHttpClient) -> None:
    first = await registered(client, idempotency_key="k" * 64)
    assert await registered(client, idempotency_key="k" * 64) == first
    with pytest.raises(ValueError, match="64"):
        await registered(client, idempotency_key="k" * 65)


async def test_a_key_belongs_to_its_account(client: PrefactorHttpClient, emulator: EmulatorThread) -> None:
    instance = await registered(client, idempotency_key="1")
    async with PrefactorHttpClient(HttpClientConfig(emulator.url, uuid4().hex)) as stranger:
        other = await registered(stranger, idempotency_key="1")
        assert other.id != instance.id
        assert other.account_id != instance.account_id
        with pytest.raises(PrefactorNotFoundError):
            await stranger.agent_instances.start(instance.id)
    assert (await client.agent_instances.get(instance.id)).status == "pending"


async def test_a_request_of_ones_own_is_answered(client: PrefactorHttpClient, key: Keys) -> None:
    instance = await registered(client)
    path = f"/api/v1/agent_instance/{instance.id}"
    begun = await client.request("POST", f"{path}/start", json_data={}, idempotency_key=key())
    assert (begun["status"], begun["details"]["status"]) == ("success", "active")
    assert await client.request("GET", path, idempotency_key=key()) == begun


async def test_what_is_sent_twice_under_a_key_happens_once() -> None:
    async with misbehaving("--fault", "lost-reply:count=3", retries=5) as client:
        instance = await registered(client, idempotency_key="1")
        await client.agent_instances.start(instance.id, idempotency_key="2")
        span = await client.agent_spans.create(instance.id, "plain", "active", idempotency_key="3")
        await client.agent_spans.finish(span.id, idempotency_key="4")
        found = await client.agent_instances.get(instance.id)
        assert (found.status, found.span_counts.total, found.span_counts.complete) == ("active", 1, 1)


@pytest.mark.parametrize(
    "fault", ["error:status=503,count=2", "throttle:count=1,retry_after=1", "away:count=2"]
)
async def test_an_outage_is_overcome(fault: str) -> None:
    async with misbehaving("--fault", fault, retries=5) as client:
        instance = await registered(client, idempotency_key="1")
        assert (await client.agent_instances.get(instance.id)).status == "pending"


@pytest.mark.parametrize(("fault", "status"), [("error:status=500", 500), ("throttle:retry_after=0", 429)])
async def test_the_client_gives_up_in_the_end(fault: str, status: int) -> None:
    async with misbehaving("--fault", fault, retries=1) as client:
        with pytest.raises(PrefactorRetryExhaustedError) as given_up:
            await registered(client, idempotency_key="1")
        assert isinstance(given_up.value.last_error, PrefactorApiError)
        assert given_up.value.last_error.status_code == status


async def test_the_page_of_a_proxy_breaks_the_contract() -> None:
    async with misbehaving("--fault", "html-errors:status=404") as client:
        with pytest.raises(PrefactorResponseContractError) as broken:
            await registered(client)
        assert broken.value.status_code == 404


async def test_generated_ids_can_be_used(client: PrefactorHttpClient) -> None:
    for made in await ids(client, 3):
        assert (await registered(client, id=made)).id == made
