"""What replies say of what is kept."""

from dataclasses import asdict

from prefactor_emulator.model import FINAL_STATUSES, Status
from prefactor_emulator.replies import Agent, AvailableActions, Instance, InstanceCounts, Span, SpanCounts
from prefactor_emulator.rules.call import account_id
from prefactor_emulator.storage.records import AgentRecord, InstanceRecord, SpanRecord
from prefactor_emulator.storage.store import Store

_OVER = (*FINAL_STATUSES, Status.TERMINATED)


def instance_details(store: Store, instance: InstanceRecord) -> Instance:
    """Say of an instance what the API says, its spans and qualities included."""
    counts = store.count_by_status(SpanRecord, "instance_id = ?", instance.id)
    qualities = store.qualities(instance.id)
    values = asdict(instance)
    del values["account"], values["schema_version_id"]
    return Instance(
        **values,
        account_id=account_id(instance.account),
        span_counts=SpanCounts(
            total=sum(counts.values()),
            active=counts.get(Status.ACTIVE, 0),
            complete=counts.get(Status.COMPLETE, 0),
            failed=counts.get(Status.FAILED, 0),
            cancelled=counts.get(Status.CANCELLED, 0),
            finished=sum(counts.get(status, 0) for status in FINAL_STATUSES),
        ),
        quality_payloads={quality.name: quality.payload for quality in qualities},
        quality_summaries={quality.name: quality.summary for quality in qualities if quality.summary},
    )


def span_details(span: SpanRecord, instance: InstanceRecord) -> Span:
    """Say of a span what the API says."""
    return Span.model_construct(
        type="agent_span",
        id=span.id,
        account_id=account_id(instance.account),
        agent_id=instance.agent_id,
        agent_instance_id=instance.id,
        parent_span_id=span.parent_span_id,
        schema_name=span.schema_name,
        schema_title=span.schema_title,
        status=span.status,
        payload=span.payload,
        result_payload=span.result_payload,
        summary=span.summary,
        started_at=span.started_at,
        inserted_at=span.inserted_at,
        updated_at=span.updated_at,
        finished_at=span.finished_at,
    )


def agent_details(
    store: Store, agent: AgentRecord, environment_id: str | None = None, *, counted: bool = True
) -> Agent:
    """Say of an agent what the API says.

    Args:
        store: Where its instances are kept.
        agent: The agent.
        environment_id: The only environment whose instances count, if any.
        counted: Whether to count its instances.
    """
    by_status = store.count_by_status(InstanceRecord, "agent_id = ?", agent.id)
    counts = by_status
    if environment_id is not None:
        where = "agent_id = ? AND environment_id = ?"
        counts = store.count_by_status(InstanceRecord, where, agent.id, environment_id)
    finished = sum(counts.get(status, 0) for status in _OVER)
    total = InstanceCounts(total=sum(counts.values()), finished=finished)
    values = asdict(agent)
    retired = bool(values.pop("retired"))
    del values["account"]
    return Agent(
        **values,
        status="retired" if retired else "active" if by_status else "pending",
        instance_counts=total.model_copy(update=counts) if counted else None,
        available_actions=AvailableActions(
            update=not retired, retire=not retired, reinstate=retired, delete=not by_status
        ),
    )
