"""The published HTTP client sends operations of every type in bulk."""

from itertools import count
from typing import Any

from prefactor_http import (
    AgentInstance,
    AgentSpan,
    BulkItem,
    BulkRequest,
    BulkResponse,
    PrefactorHttpClient,
)

from tests.peers.calling import FINISHED, SCHEMAS, STARTED, VERSION, ids, registered, started

_numbers = count(1)


def item(type_: str, **fields: Any) -> BulkItem:
    return BulkItem(_type=type_, idempotency_key=f"bulk-{next(_numbers):08d}", **fields)


def span(instance_id: str, **fields: Any) -> dict[str, Any]:
    return {
        "agent_instance_id": instance_id,
        "schema_name": "plain",
        "status": "active",
        "payload": {},
    } | fields


async def execute(client: PrefactorHttpClient, *items: BulkItem) -> tuple[BulkResponse, list[dict[str, Any]]]:
    """Send items; return the reply, and the outputs in the order of the items."""
    reply = await client.bulk.execute(BulkRequest(items=list(items)))
    assert reply.status == "success"
    assert reply.outputs.keys() <= {item.idempotency_key for item in items}
    found = (reply.outputs.get(item.idempotency_key) for item in items)
    return reply, [output.model_dump() for output in found if output is not None]


async def test_a_whole_run_is_one_request(client: PrefactorHttpClient) -> None:
    instance_id, parent_id, span_id = await ids(client, 3)
    _, outputs = await execute(
        client,
        item(
            "agent_instances/register",
            agent_version=VERSION,
            agent_schema_version=SCHEMAS,
            id=instance_id,
            agent_id="books",
            purpose="eval",
            external_identifier="march",
            update_current_version=True,
        ),
        item("agent_instances/start", agent_instance_id=instance_id, timestamp=STARTED.isoformat()),
        item("agent_spans/create", details=span(instance_id, id=parent_id)),
        item(
            "agent_spans/create",
            details=span(instance_id, id=span_id, parent_span_id=parent_id, payload={"question": "Paid?"}),
        ),
        item("agent_spans/finish", agent_span_id=span_id, status="failed", result_payload={"answer": "No"}),
        item("agent_spans/finish", agent_span_id=parent_id, timestamp=FINISHED.isoformat()),
        item(
            "agent_instances/record_quality",
            agent_instance_id=instance_id,
            name="accuracy",
            payload={"right": 1, "all": 2},
        ),
        item(
            "agent_instances/finish",
            agent_instance_id=instance_id,
            status="failed",
            timestamp=FINISHED.isoformat(),
        ),
    )
    assert [output["status"] for output in outputs] == ["success"] * 8
    details = [output["details"] for output in outputs]
    instances = [AgentInstance.model_validate(details[place]) for place in (0, 1, 6, 7)]
    assert {instance.id for instance in instances} == {instance_id}
    assert [instance.status for instance in instances] == ["pending", "active", "active", "failed"]
    over = instances[-1]
    assert (over.started_at, over.finished_at) == (STARTED, FINISHED)
    assert (over.purpose, over.external_identifier) == ("eval", "march")
    assert over.quality_payloads == {"accuracy": {"right": 1, "all": 2}}
    assert over.quality_summaries == {"accuracy": "1 of 2"}
    assert over.span_counts.model_dump() == {
        "total": 2,
        "active": 0,
        "complete": 1,
        "failed": 1,
        "cancelled": 0,
        "finished": 2,
    }
    spans = [AgentSpan.model_validate(details[place]) for place in (2, 3, 4, 5)]
    assert [found.id for found in spans] == [parent_id, span_id, span_id, parent_id]
    assert [found.status for found in spans] == ["active", "active", "failed", "complete"]
    assert (spans[2].parent_span_id, spans[2].result_payload) == (parent_id, {"answer": "No"})
    assert spans[2].payload == {"question": "Paid?"}
    assert spans[3].finished_at == FINISHED
    assert await client.agent_instances.get(instance_id) == over


async def test_a_span_may_be_flat_in_bulk(client: PrefactorHttpClient) -> None:
    instance = await started(client)
    whole = span(instance.id, status="complete", payload={"a": 1}, result_payload={"b": 2})
    _, (output,) = await execute(client, item("agent_spans/create", **whole))
    found = AgentSpan.model_validate(output["details"])
    assert (found.status, found.payload, found.result_payload) == ("complete", {"a": 1}, {"b": 2})


async def test_a_quality_is_removed_in_bulk(client: PrefactorHttpClient) -> None:
    instance = await started(client)
    named = {"agent_instance_id": instance.id, "name": "accuracy"}
    _, outputs = await execute(
        client,
        item("agent_instances/record_quality", **named, payload={"right": 1, "all": 1}),
        item("agent_instances/record_quality", **named, payload=None),
    )
    kept = [AgentInstance.model_validate(output["details"]).quality_payloads for output in outputs]
    assert kept == [{"accuracy": {"right": 1, "all": 1}}, {}]


async def test_the_first_error_ends_a_request(client: PrefactorHttpClient) -> None:
    instance = await registered(client)
    to_instance = {"agent_instance_id": instance.id}
    reply, outputs = await execute(
        client,
        item("agent_instances/start", **to_instance),
        item("agent_instances/start", **to_instance),
        item("agent_instances/finish", **to_instance),
    )
    assert len(reply.outputs) == 2
    assert [output["status"] for output in outputs] == ["success", "error"]
    assert outputs[1]["code"] == "invalid_action"
    assert outputs[1]["message"]
    assert (await client.agent_instances.get(instance.id)).status == "active"


async def test_a_missing_or_invalid_field_is_named(client: PrefactorHttpClient) -> None:
    instance = await started(client)
    for wrong in (
        item("agent_spans/create", details={"agent_instance_id": instance.id}),
        item("agent_spans/create", details=span(instance.id, status="sleeping")),
        item("agent_instances/record_quality", agent_instance_id=instance.id, payload={}),
    ):
        _, (output,) = await execute(client, wrong)
        assert (output["status"], output["code"]) == ("error", "validation_error")
        assert output["errors"]


async def test_what_is_not_there_is_not_found_in_bulk(client: PrefactorHttpClient) -> None:
    (missing,) = await ids(client, 1)
    for wrong in (
        item("agent_instances/start", agent_instance_id=missing),
        item("agent_instances/finish", agent_instance_id=missing),
        item("agent_instances/record_quality", agent_instance_id=missing, name="accuracy", payload={}),
        item("agent_spans/create", details=span(missing)),
        item("agent_spans/finish", agent_span_id=missing),
    ):
        _, (output,) = await execute(client, wrong)
        assert (output["status"], output["code"]) == ("error", "not_found")


async def test_a_repeated_request_gets_the_first_reply(client: PrefactorHttpClient) -> None:
    instance = await registered(client)
    request = BulkRequest(
        items=[
            item("agent_instances/start", agent_instance_id=instance.id),
            item("agent_spans/create", details=span(instance.id)),
        ]
    )
    first = await client.bulk.execute(request)
    assert await client.bulk.execute(request) == first
    assert (await client.agent_instances.get(instance.id)).span_counts.total == 1


async def test_keys_are_shared_by_single_and_bulk_requests(client: PrefactorHttpClient) -> None:
    instance = await registered(client)
    start = item("agent_instances/start", agent_instance_id=instance.id, timestamp=None)
    single = await client.agent_instances.start(instance.id, idempotency_key=start.idempotency_key)
    _, (output,) = await execute(client, start)
    assert AgentInstance.model_validate(output["details"]) == single


async def test_an_unknown_type_is_an_error_of_its_item(client: PrefactorHttpClient) -> None:
    _, (output,) = await execute(client, item("agent_instances/dance"))
    assert output["status"] == "error"
    assert "type" in output["code"]
