"""What replies say of what is kept; `replies` describes it."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict

from prefactor_emulator.model import FINAL_STATUSES, JsonObject, Status
from prefactor_emulator.rules.call import account_id
from prefactor_emulator.storage.records import AgentRecord, InstanceRecord, SpanRecord
from prefactor_emulator.storage.store import Store

_INSTANCE_OVER = (*FINAL_STATUSES, Status.TERMINATED)
_COUNTED_SPANS = (Status.ACTIVE, *FINAL_STATUSES)


def instance_details(store: Store, instance: InstanceRecord) -> JsonObject:
    """Say of an instance what the API says, its spans and qualities included."""
    spans = store.count_by_status(SpanRecord, "instance_id = ?", instance.id)
    qualities = store.qualities(instance.id)
    details = asdict(instance)
    del details["schema_version_id"]
    return {
        "type": "agent_instance",
        "account_id": account_id(details.pop("account")),
        **details,
        "span_counts": _counts(spans, _COUNTED_SPANS, FINAL_STATUSES),
        "quality_payloads": {quality.name: quality.payload for quality in qualities},
        "quality_summaries": {quality.name: quality.summary for quality in qualities if quality.summary},
    }


def span_details(span: SpanRecord, instance: InstanceRecord) -> JsonObject:
    """Say of a span what the API says."""
    return {
        "type": "agent_span",
        "id": span.id,
        "account_id": account_id(instance.account),
        "agent_id": instance.agent_id,
        "agent_instance_id": instance.id,
        "parent_span_id": span.parent_span_id,
        "schema_name": span.schema_name,
        "schema_title": span.schema_title,
        "status": span.status,
        "payload": span.payload,
        "result_payload": span.result_payload,
        "summary": span.summary,
        "started_at": span.started_at,
        "inserted_at": span.inserted_at,
        "updated_at": span.updated_at,
        "finished_at": span.finished_at,
    }


def agent_details(
    store: Store, agent: AgentRecord, environment_id: str | None = None, *, counted: bool = True
) -> JsonObject:
    """Say of an agent what the API says.

    Args:
        store: Where its instances are kept.
        agent: The agent.
        environment_id: The only environment whose instances count, if any.
        counted: Whether to count its instances.
    """
    instances = store.count_by_status(InstanceRecord, "agent_id = ?", agent.id)
    used = bool(instances)
    if environment_id is not None:
        where = "agent_id = ? AND environment_id = ?"
        instances = store.count_by_status(InstanceRecord, where, agent.id, environment_id)
    details = asdict(agent)
    retired = bool(details.pop("retired"))
    del details["account"]
    return {
        "type": "agent",
        **details,
        "status": "retired" if retired else "active" if used else "pending",
        "instance_counts": _counts(instances, tuple(Status), _INSTANCE_OVER) if counted else None,
        "available_actions": {
            "update": not retired,
            "retire": not retired,
            "reinstate": retired,
            "delete": not used,
        },
    }


def _counts(by_status: Mapping[str, int], shown: Iterable[str], over: Iterable[str]) -> dict[str, int]:
    return {
        "total": sum(by_status.values()),
        **{str(status): by_status.get(status, 0) for status in shown},
        "finished": sum(by_status.get(status, 0) for status in over),
    }
