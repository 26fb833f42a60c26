"""The published HTTP client creates and finishes spans, and hears the signal to stop."""

import pytest
from prefactor_http import (
    AgentSpan,
    AgentStatus,
    PrefactorApiError,
    PrefactorHttpClient,
    PrefactorNotFoundError,
    PrefactorValidationError,
)
from prefactor_http.models.base import ListResponse

from prefactor_core.identifiers import is_pfid
from tests.peers.calling import (
    FINISHED,
    STARTED,
    Keys,
    ids,
    is_now,
    misbehaving,
    registered,
    said,
    started,
    terminate,
)

FINAL = ("complete", "failed", "cancelled")


async def stored(client: PrefactorHttpClient, instance_id: str) -> list[AgentSpan]:
    """Return the spans of an instance."""
    params = {"agent_instance_id": instance_id, "include_summaries": "true"}
    reply = await client.request("GET", "/api/v1/agent_spans", params=params)
    return list(ListResponse[AgentSpan].model_validate(reply).summaries)


async def test_an_active_span_is_finished(client: PrefactorHttpClient, key: Keys) -> None:
    instance = await started(client)
    span = await client.agent_spans.create(
        instance.id, "typed", "active", payload={"question": "Paid?"}, idempotency_key=key()
    )
    assert is_pfid(span.id)
    assert (span.agent_instance_id, span.agent_id) == (instance.id, instance.agent_id)
    assert span.account_id == instance.account_id
    assert (span.schema_name, span.schema_title, span.status) == ("typed", "A question", "active")
    assert (span.payload, span.result_payload) == ({"question": "Paid?"}, None)
    assert span.parent_span_id is span.finished_at is None
    assert span.summary == "Paid?: "
    assert all(map(is_now, (span.started_at, span.inserted_at, span.updated_at)))
    over = await client.agent_spans.finish(span.id, result_payload={"answer": "Yes"}, idempotency_key=key())
    assert (over.id, over.status, over.started_at) == (span.id, "complete", span.started_at)
    assert (over.payload, over.result_payload) == ({"question": "Paid?"}, {"answer": "Yes"})
    assert over.summary == "Paid?: Yes"
    assert is_now(over.finished_at)
    assert await stored(client, instance.id) == [over]


@pytest.mark.parametrize("status", FINAL)
async def test_a_span_has_what_it_was_finished_with(
    client: PrefactorHttpClient, key: Keys, status: str
) -> None:
    instance = await started(client)
    span = await client.agent_spans.create(
        instance.id, "plain", "active", started_at=STARTED, idempotency_key=key()
    )
    assert (span.started_at, span.payload) == (STARTED, {})
    over = await client.agent_spans.finish(
        span.id, status, {"answer": {"deep": [1, 2.5, None, "ü"]}}, FINISHED, idempotency_key=key()
    )
    assert (over.status, over.started_at, over.finished_at) == (status, STARTED, FINISHED)
    assert over.result_payload == {"answer": {"deep": [1, 2.5, None, "ü"]}}


@pytest.mark.parametrize("status", ["complete", "failed"])
async def test_a_whole_span_is_one_create(client: PrefactorHttpClient, key: Keys, status: str) -> None:
    instance = await started(client)
    parent_id, span_id = await ids(client, 2)
    await client.agent_spans.create(instance.id, "plain", "active", id=parent_id, idempotency_key=key())
    span = await client.agent_spans.create(
        instance.id,
        "typed",
        status,
        payload={"question": "Paid?", "answer": "Not known"},
        result_payload={"answer": "Yes"},
        id=span_id,
        parent_span_id=parent_id,
        started_at=STARTED,
        finished_at=FINISHED,
        idempotency_key=key(),
    )
    assert (span.id, span.parent_span_id, span.status) == (span_id, parent_id, status)
    assert (span.started_at, span.finished_at) == (STARTED, FINISHED)
    assert span.payload == {"question": "Paid?", "answer": "Not known"}
    assert (span.result_payload, span.summary) == ({"answer": "Yes"}, "Paid?: Yes")
    kept = {found.id: found for found in await stored(client, instance.id)}
    assert kept.keys() == {parent_id, span_id}
    assert kept[span_id] == span
    counts = (await client.agent_instances.get(instance.id)).span_counts
    assert counts.model_dump() == dict.fromkeys(FINAL, 0) | {
        "total": 2,
        "active": 1,
        status: 1,
        "finished": 1,
    }


async def test_a_pending_span_can_only_be_cancelled(client: PrefactorHttpClient, key: Keys) -> None:
    instance = await started(client)
    span = await client.agent_spans.create(instance.id, "plain", "pending", idempotency_key=key())
    assert (span.status, span.started_at, span.finished_at) == ("pending", None, None)
    for status in ("complete", "failed"):
        with pytest.raises(PrefactorApiError) as refusal:
            await client.agent_spans.finish(span.id, status, idempotency_key=key())
        assert said(refusal.value) == (409, "invalid_action")
    over = await client.agent_spans.finish(span.id, "cancelled", idempotency_key=key())
    assert (over.status, over.started_at) == ("cancelled", None)


@pytest.mark.parametrize("status", ["cancelled", "terminated"])
async def test_a_span_is_not_created_in_an_end_that_is_not_known_of_creates(
    client: PrefactorHttpClient, key: Keys, status: AgentStatus
) -> None:
    instance = await started(client)
    with pytest.raises(PrefactorValidationError):
        await client.agent_spans.create(instance.id, "plain", status, idempotency_key=key())
    assert await stored(client, instance.id) == []


@pytest.mark.parametrize("status", ["complete", "failed"])
async def test_a_span_is_finished_once(client: PrefactorHttpClient, key: Keys, status: str) -> None:
    instance = await started(client)
    span = await client.agent_spans.create(instance.id, "plain", status, idempotency_key=key())
    with pytest.raises(PrefactorApiError) as refusal:
        await client.agent_spans.finish(span.id, idempotency_key=key())
    assert said(refusal.value) == (409, "invalid_action")
    assert await stored(client, instance.id) == [span]


async def test_a_repeat_under_its_key_gets_the_first_reply(client: PrefactorHttpClient) -> None:
    instance = await started(client)
    create, finish = client.agent_spans.create, client.agent_spans.finish
    span = await create(instance.id, "plain", "active", idempotency_key="create")
    over = await finish(span.id, result_payload={"a": 1}, idempotency_key="finish")
    assert await create(instance.id, "plain", "active", idempotency_key="create") == span
    assert await finish(span.id, result_payload={"a": 1}, idempotency_key="finish") == over
    assert await stored(client, instance.id) == [over]


async def test_another_body_under_a_key_is_refused(client: PrefactorHttpClient) -> None:
    instance = await started(client)
    span = await client.agent_spans.create(instance.id, "plain", "active", idempotency_key="create")
    with pytest.raises(PrefactorValidationError) as refusal:
        await client.agent_spans.create(instance.id, "plain", "pending", idempotency_key="create")
    assert refusal.value.status_code == 422
    assert await stored(client, instance.id) == [span]


async def test_a_pending_instance_takes_spans(client: PrefactorHttpClient, key: Keys) -> None:
    instance = await registered(client)
    span = await client.agent_spans.create(instance.id, "plain", "active", idempotency_key=key())
    assert (await client.agent_spans.finish(span.id, idempotency_key=key())).status == "complete"
    assert (await client.agent_instances.start(instance.id)).status == "active"


async def test_what_does_not_fit_its_schema_is_taken(client: PrefactorHttpClient, key: Keys) -> None:
    instance = await started(client)
    for schema in ("typed", "never declared"):
        span = await client.agent_spans.create(
            instance.id, schema, "active", payload={"question": 42}, idempotency_key=key()
        )
        over = await client.agent_spans.finish(span.id, result_payload={"answer": []}, idempotency_key=key())
        assert (over.schema_name, over.payload) == (schema, {"question": 42})
        assert over.result_payload == {"answer": []}


async def test_a_span_needs_its_instance_and_its_parent(client: PrefactorHttpClient, key: Keys) -> None:
    instance = await started(client)
    (missing,) = await ids(client, 1)
    create = client.agent_spans.create
    for call in (
        create(missing, "plain", "active", idempotency_key=key()),
        create(instance.id, "plain", "active", parent_span_id=missing, idempotency_key=key()),
        client.agent_spans.finish(missing, idempotency_key=key()),
    ):
        with pytest.raises(PrefactorNotFoundError) as refusal:
            await call
        assert said(refusal.value) == (404, "not_found")


async def test_the_id_of_a_span_is_given_once(client: PrefactorHttpClient, key: Keys) -> None:
    instance = await started(client)
    span = await client.agent_spans.create(instance.id, "plain", "active", idempotency_key=key())
    with pytest.raises(PrefactorApiError) as refusal:
        await client.agent_spans.create(instance.id, "plain", "failed", id=span.id, idempotency_key=key())
    assert said(refusal.value) == (409, "conflict")


async def test_nothing_calls_for_a_stop_that_nobody_has_asked_for(client: PrefactorHttpClient) -> None:
    instance = await started(client)
    heard: list[str | None] = []
    span = await client.agent_spans.create(
        instance.id, "plain", "active", control_signal_callback=heard.append
    )
    await client.agent_spans.finish(span.id, control_signal_callback=heard.append)
    assert heard == []


async def test_the_signal_to_stop_comes_with_a_span() -> None:
    fault = "terminate:type=agent_spans/create,schema=typed,reason=enough"
    async with misbehaving("--fault", fault) as client:
        instance = await started(client)
        heard: list[str | None] = []
        create = client.agent_spans.create
        plain = await create(instance.id, "plain", "active", control_signal_callback=heard.append)
        assert heard == []
        await create(instance.id, "typed", "active", control_signal_callback=heard.append)
        assert heard == ["enough"]
        terminated = await client.agent_instances.get(instance.id)
        assert (terminated.status, terminated.termination_reason) == ("terminated", "enough")
        with pytest.raises(PrefactorApiError) as refusal:
            await client.agent_spans.finish(plain.id)
        assert said(refusal.value) == (409, "invalid_action")


async def test_termination_closes_the_spans_in_flight(client: PrefactorHttpClient, key: Keys) -> None:
    instance = await started(client)
    create, finish = client.agent_spans.create, client.agent_spans.finish
    in_flight = await create(instance.id, "plain", "active", idempotency_key=key())
    done = await create(instance.id, "plain", "complete", idempotency_key=key())
    await terminate(client, instance.id, "too costly")
    kept = {span.id: span for span in await stored(client, instance.id)}
    assert kept[done.id] == done
    assert kept[in_flight.id].status in FINAL
    assert is_now(kept[in_flight.id].finished_at)
    with pytest.raises(PrefactorApiError) as refusal:
        await finish(in_flight.id, result_payload={"too": "late"}, idempotency_key=key())
    assert said(refusal.value) == (409, "invalid_action")
    assert {span.id: span for span in await stored(client, instance.id)} == kept
    heard: list[str | None] = []
    late = await create(
        instance.id, "plain", "active", idempotency_key=key(), control_signal_callback=heard.append
    )
    await finish(late.id, idempotency_key=key(), control_signal_callback=heard.append)
    assert heard == ["too costly"] * 2
