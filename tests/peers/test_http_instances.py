"""The published HTTP client registers, starts, judges and finishes instances."""

from datetime import UTC, datetime

import pytest
from prefactor_http import AgentInstance, PrefactorApiError, PrefactorHttpClient, PrefactorNotFoundError
from prefactor_http.models.base import ListResponse

from prefactor_core.identifiers import is_pfid
from tests.peers.calling import (
    FINISHED,
    SCHEMAS,
    STARTED,
    VERSION,
    Keys,
    ids,
    is_now,
    registered,
    said,
    started,
    terminate,
)

RUNTIME = {"agent_sdk": ["books@1"], "os": "linux", "prefactor_sdk": ["books@1"], "runtime": "cpython@3.11"}
IDS = ("id", "account_id", "agent_id", "agent_version_id", "environment_id", "agent_deployment_id")


async def test_a_registered_instance_is_pending(client: PrefactorHttpClient, key: Keys) -> None:
    instance = await client.agent_instances.register(VERSION, SCHEMAS, idempotency_key=key())
    assert all(is_pfid(getattr(instance, name)) for name in IDS)
    assert (instance.status, instance.purpose) == ("pending", "live")
    assert is_now(instance.inserted_at)
    assert is_now(instance.updated_at)
    assert instance.started_at is instance.finished_at is instance.termination_reason is None
    assert instance.external_identifier is None
    assert set(instance.span_counts.model_dump().values()) == {0}
    assert not instance.quality_payloads
    assert not instance.quality_summaries
    assert await client.agent_instances.get(instance.id) == instance


@pytest.mark.parametrize("purpose", ["live", "smoke_test", "eval"])
@pytest.mark.parametrize("update", [True, False])
async def test_an_instance_has_what_it_was_registered_with(
    client: PrefactorHttpClient, key: Keys, purpose: str, update: bool
) -> None:
    agent_id, instance_id = await ids(client, 2)
    environment_id = (await registered(client)).environment_id
    instance = await client.agent_instances.register(
        VERSION | {"description": "The first", "runtime_environment": RUNTIME},
        SCHEMAS,
        agent_id=agent_id,
        environment_id=environment_id,
        id=instance_id,
        idempotency_key=key(),
        update_current_version=update,
        purpose=purpose,
        external_identifier="march",
    )
    assert instance.id == instance_id
    assert (instance.agent_id, instance.environment_id) == (agent_id, environment_id)
    assert (instance.purpose, instance.external_identifier) == (purpose, "march")
    assert await client.agent_instances.get(instance_id) == instance


async def test_instances_share_what_they_have_in_common(client: PrefactorHttpClient) -> None:
    one, another = await registered(client), await registered(client)
    newer = await client.agent_instances.register(VERSION | {"external_identifier": "books-2.0"}, SCHEMAS)
    assert one.id != another.id
    for name in IDS[1:]:
        assert getattr(one, name) == getattr(another, name), name
    assert newer.agent_version_id != one.agent_version_id
    assert (newer.agent_id, newer.account_id) == (one.agent_id, one.account_id)


async def test_an_id_and_an_external_identifier_are_given_once(client: PrefactorHttpClient) -> None:
    instance = await registered(client, agent_id="books", external_identifier="march")
    for taken in ({"id": instance.id}, {"external_identifier": "march"}):
        with pytest.raises(PrefactorApiError) as refusal:
            await registered(client, agent_id="books", **taken)
        assert said(refusal.value) == (409, "conflict")
    other = await registered(client, agent_id="another", external_identifier="march")
    assert other.external_identifier == "march"


async def test_an_instance_starts_and_finishes_now(client: PrefactorHttpClient, key: Keys) -> None:
    pending = await registered(client)
    active = await client.agent_instances.start(pending.id, idempotency_key=key())
    assert (active.id, active.status, active.finished_at) == (pending.id, "active", None)
    assert is_now(active.started_at)
    complete = await client.agent_instances.finish(pending.id, idempotency_key=key())
    assert (complete.status, complete.started_at) == ("complete", active.started_at)
    assert is_now(complete.finished_at)
    assert complete.updated_at >= active.updated_at >= pending.updated_at
    assert complete.inserted_at == pending.inserted_at
    assert await client.agent_instances.get(pending.id) == complete


@pytest.mark.parametrize("status", ["complete", "failed", "cancelled"])
async def test_an_instance_starts_and_finishes_when_it_says(
    client: PrefactorHttpClient, key: Keys, status: str
) -> None:
    instance = await registered(client)
    active = await client.agent_instances.start(instance.id, STARTED, idempotency_key=key())
    assert active.started_at == STARTED
    over = await client.agent_instances.finish(instance.id, status, FINISHED, idempotency_key=key())
    assert (over.status, over.started_at, over.finished_at) == (status, STARTED, FINISHED)


async def test_a_time_without_an_offset_is_utc(client: PrefactorHttpClient) -> None:
    instance = await registered(client)
    active = await client.agent_instances.start(instance.id, STARTED.replace(tzinfo=None))
    assert active.started_at == STARTED
    assert active.started_at.astimezone(UTC) == datetime(2026, 3, 1, 9, 59, 0, 123000, tzinfo=UTC)


async def test_nothing_starts_or_finishes_twice(client: PrefactorHttpClient, key: Keys) -> None:
    instance = await started(client)
    with pytest.raises(PrefactorApiError) as refusal:
        await client.agent_instances.start(instance.id, idempotency_key=key())
    assert said(refusal.value) == (409, "invalid_action")
    await client.agent_instances.finish(instance.id, idempotency_key=key())
    with pytest.raises(PrefactorApiError) as refusal:
        await client.agent_instances.finish(instance.id, "failed", idempotency_key=key())
    assert said(refusal.value) == (409, "invalid_action")
    assert (await client.agent_instances.get(instance.id)).status == "complete"


async def test_a_repeat_under_its_key_gets_the_first_reply(client: PrefactorHttpClient) -> None:
    first = await registered(client, idempotency_key="register")
    assert await registered(client, idempotency_key="register") == first
    active = await client.agent_instances.start(first.id, idempotency_key="start")
    over = await client.agent_instances.finish(first.id, "failed", idempotency_key="finish")
    assert await client.agent_instances.start(first.id, idempotency_key="start") == active
    assert await client.agent_instances.finish(first.id, "failed", idempotency_key="finish") == over
    assert await client.agent_instances.get(first.id) == over


async def test_a_quality_is_recorded_replaced_and_removed(client: PrefactorHttpClient, key: Keys) -> None:
    instance = await started(client)
    record = client.agent_instances.record_quality
    judged = await record(instance.id, "accuracy", {"right": 7, "all": 8}, idempotency_key=key())
    assert judged.quality_payloads == {"accuracy": {"right": 7, "all": 8}}
    assert judged.quality_summaries == {"accuracy": "7 of 8"}
    judged = await record(instance.id, "accuracy", {"right": 8, "all": 8}, idempotency_key=key())
    assert judged.quality_payloads == {"accuracy": {"right": 8, "all": 8}}
    assert judged.quality_summaries == {"accuracy": "8 of 8"}
    judged = await record(instance.id, "undeclared", {"tone": "kind"}, idempotency_key=key())
    assert judged.quality_payloads == {"accuracy": {"right": 8, "all": 8}, "undeclared": {"tone": "kind"}}
    judged = await record(instance.id, "accuracy", idempotency_key=key())
    assert judged.quality_payloads == {"undeclared": {"tone": "kind"}}
    assert not judged.quality_summaries.get("accuracy")
    assert await client.agent_instances.get(instance.id) == judged


async def test_a_quality_is_recorded_after_the_end(client: PrefactorHttpClient, key: Keys) -> None:
    instance = await started(client)
    await client.agent_instances.finish(instance.id)
    judged = await client.agent_instances.record_quality(
        instance.id, "accuracy", {"right": 1, "all": 1}, idempotency_key=key()
    )
    assert (judged.status, judged.quality_payloads) == ("complete", {"accuracy": {"right": 1, "all": 1}})


async def test_a_terminated_instance_says_why(client: PrefactorHttpClient) -> None:
    instance = await started(client)
    terminated = await terminate(client, instance.id, "too costly")
    assert (terminated.id, terminated.status) == (instance.id, "terminated")
    assert terminated.termination_reason == "too costly"
    assert await client.agent_instances.get(instance.id) == terminated
    with pytest.raises(PrefactorApiError) as refusal:
        await client.agent_instances.finish(instance.id)
    assert said(refusal.value) == (409, "invalid_action")


async def test_only_an_active_instance_is_terminated(client: PrefactorHttpClient) -> None:
    pending, over = await registered(client), await started(client)
    await client.agent_instances.finish(over.id)
    for instance in (pending, over):
        with pytest.raises(PrefactorApiError) as refusal:
            await terminate(client, instance.id, "too late")
        assert said(refusal.value) == (409, "invalid_action")
        assert (await client.agent_instances.get(instance.id)).termination_reason is None


async def test_nobody_finds_an_instance_that_is_not_there(client: PrefactorHttpClient, key: Keys) -> None:
    (missing,) = await ids(client, 1)
    for call in (
        client.agent_instances.get(missing),
        client.agent_instances.start(missing, idempotency_key=key()),
        client.agent_instances.finish(missing, idempotency_key=key()),
        client.agent_instances.record_quality(missing, "accuracy", {}, idempotency_key=key()),
    ):
        with pytest.raises(PrefactorNotFoundError) as refusal:
            await call
        assert said(refusal.value) == (404, "not_found")


async def test_instances_are_listed_by_pages(client: PrefactorHttpClient) -> None:
    instances = [await registered(client) for _ in range(3)]
    found = []
    for offset in (0, 2):
        params = {"pagination[offset]": offset, "pagination[page_size]": 2}
        reply = await client.request("GET", "/api/v1/agent_instance", params=params)
        listed = ListResponse[AgentInstance].model_validate(reply)
        assert (listed.pagination.item_count, listed.pagination.page_count) == (3, 2)
        found.append([instance.id for instance in listed.summaries])
    assert [len(part) for part in found] == [2, 1]
    assert {one for part in found for one in part} == {instance.id for instance in instances}
