"""The public surface as an application uses it: type-checked, never run."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, assert_type

from prefactor_core import (
    AgentInstance,
    AgentInstanceHandle,
    AgentInstanceManager,
    ClientStats,
    CloseSummary,
    DeadLetter,
    Delivery,
    HttpClientConfig,
    InMemoryQueue,
    Operation,
    OperationType,
    PrefactorCoreClient,
    PrefactorCoreConfig,
    PrefactorTelemetryFailureError,
    PrefactorTerminatedError,
    Queue,
    QueueClosedError,
    QueueConfig,
    SchemaRegistry,
    Span,
    SpanContext,
    SpanContextStack,
    SpanNotFoundError,
    TaskExecutor,
    __version__,
    build_runtime_environment,
    generate_idempotency_key,
    validate_idempotency_key,
    warn_missing_adaptor_config,
)
from prefactor_core.client import CORE_SDK_HEADER_ENTRY


def configuration() -> PrefactorCoreConfig:
    registry = SchemaRegistry()
    registry.register("langchain:llm", {"type": "object"})
    registry.register_unsafe("langchain:llm", {"type": "object"})
    registry.register_result("langchain:llm", {"type": "object"})
    registry.register_type(
        name="agent:llm",
        params_schema={"type": "object"},
        result_schema={"type": "object"},
        title="LLM",
        description="A call",
        template="{{model}}",
        data_risk={"pii": True},
    )
    registry.register_quality_schema("tone", {"type": "object"}, "Tone", "How it sounds", "{{score}}", None)
    registry.merge(SchemaRegistry())
    assert_type(registry.get("langchain:llm"), dict[str, Any] | None)
    assert_type(registry.has_schema("langchain:llm"), bool)
    assert_type(registry.list_schemas(), list[str])
    assert_type(registry.to_agent_schema_version("v1"), dict[str, Any])
    config = PrefactorCoreConfig(
        http_config=HttpClientConfig(
            api_url="https://app.prefactorai.com",
            api_token="token",
            request_timeout=30,
            connect_timeout=10,
            max_retries=3,
            initial_retry_delay=1,
            max_retry_delay=60,
            retry_multiplier=2,
            retry_on_status_codes=(429, 503),
            default_idempotency_key=None,
        ),
        queue_config=QueueConfig(num_workers=3, max_retries=3, retry_delay_base=1.0),
    )
    config.schema_registry = registry
    return config


async def agent(config: PrefactorCoreConfig) -> None:
    async with PrefactorCoreClient(config, sdk_header_entry="mine@1.0") as client:
        assert_type(client, PrefactorCoreClient)
        assert_type(client.instance_manager, AgentInstanceManager)
        async with client.create_agent_instance("agent", {"name": "bot"}) as entered:
            assert_type(entered, AgentInstanceHandle)
            await entered.start()
        handle = await client.create_agent_instance(
            agent_id="agent",
            agent_version={"name": "bot"},
            agent_schema_version={"external_identifier": "s1"},
            instance_id="instance",
            external_schema_version_id="v1",
            environment_id="environment",
            purpose="eval",
            external_identifier="mine",
        )
        assert_type(handle, AgentInstanceHandle)
        assert_type(handle.id, str)
        await handle.start(timestamp=datetime.now(UTC))
        async with handle.span("agent:llm", parent_span_id=None, payload={"q": 1}) as span:
            assert_type(span, SpanContext)
            await one_span(span)
        async with client.span(handle.id, "agent:llm") as other:
            assert_type(other, SpanContext)
        span_id = await handle.create_span("agent:llm", payload={"q": 1}, started_at=datetime.now(UTC))
        assert_type(span_id, str)
        await handle.finish_span(span_id, {"a": 1}, datetime.now(UTC))
        by_client = await client.create_span(handle.id, "agent:llm", parent_span_id=span_id)
        await client.finish_span(by_client, result_payload={"a": 1}, timestamp=datetime.now(UTC))
        await handle.finish("failed", datetime.now(UTC))
        await handle.finish("done")  # type: ignore[arg-type] # one of three words


async def by_hand(config: PrefactorCoreConfig) -> AgentInstanceHandle:
    client = PrefactorCoreClient(config, queue=InMemoryQueue())
    await client.initialize()
    task = asyncio.create_task(client.create_agent_instance("agent", {"name": "bot"}))
    handle = await task
    scope = handle.span("agent:llm")
    span = await scope.__aenter__()
    assert_type(span, SpanContext)
    await scope.__aexit__(None, None, None)
    assert_type(await client.close(timeout=1.0), CloseSummary)
    return handle


async def one_span(span: SpanContext) -> None:
    assert_type(span.id, str)
    span.set_payload({"model": "m"})
    await span.start({"model": "m"}, started_at=datetime.now(UTC))
    span.set_result({"tokens": 1})
    await span.complete({"answer": 42}, timestamp=datetime.now(UTC))
    await span.fail({"error": "no"}, datetime.now(UTC))
    await span.cancel(timestamp=datetime.now(UTC))
    await span.finish()


def outcome(summary: CloseSummary) -> None:
    assert_type(summary.put, int)
    assert_type(summary.delivered, int)
    assert_type(summary.dead_lettered, int)
    assert_type(summary.dropped, dict[str, int])
    assert_type(summary.left, int)
    assert_type(summary.complete, bool)


def errors() -> None:
    try:
        raise PrefactorTelemetryFailureError("no", cause=ValueError(), operation_type="CREATE_SPAN")
    except PrefactorTelemetryFailureError as failure:
        assert_type(failure.cause, Exception)
        assert_type(failure.operation_type, str | None)
        assert_type(failure.dropped_operations, int)
    except (SpanNotFoundError, QueueClosedError):
        raise


@dataclass
class Job:
    name: str


class FiveMethods(Queue[Job]):
    def __init__(self) -> None:
        self._items: asyncio.Queue[Job] = asyncio.Queue()
        self._closed = False

    async def put(self, item: Job) -> None:
        await self._items.put(item)

    async def get(self) -> Job:
        return await self._items.get()

    def size(self) -> int:
        return self._items.qsize()

    async def close(self, num_waiters: int = 1) -> None:  # noqa: ARG002 -- the interface has it
        self._closed = True

    @property
    def closed(self) -> bool:
        return self._closed


async def execute() -> None:
    queue = FiveMethods()
    assert_type(await queue.get(), Job)
    assert_type(await queue.receive(1, 1), list[Delivery[Job]])
    assert_type(queue.dropped, Mapping[str, int])

    async def handler(job: Job) -> None:
        assert_type(job.name, str)

    executor = TaskExecutor(
        queue,
        handler,
        3,
        3,
        is_retryable=lambda error: not isinstance(error, ValueError),
        retry_delay_base=0.1,
    )
    assert_type(executor.start(), None)
    assert_type(await executor.stop(), bool)
    memory: InMemoryQueue[str] = InMemoryQueue()
    assert_type(await memory.get(), str)
    assert_type(memory.size(), int)
    assert_type(memory.closed, bool)
    assert_type(memory.dead_letters(), list[DeadLetter[str]])


def values() -> None:
    operation = Operation(
        type=OperationType.CREATE_SPAN,
        payload={"instance_id": "inst-123", "schema_name": "agent:llm", "span_id": "span-456"},
        timestamp=datetime.now(UTC),
        idempotency_key="span-456",
        metadata={"mine": 1},
    )
    assert_type(operation.payload, Mapping[str, Any])
    assert_type(operation.idempotency_key, str | None)
    assert_type(AgentInstance("i", "a").created_at, datetime)
    assert_type(Span("s", "i", "llm").finished_at, datetime | None)
    SpanContextStack.push("s")
    assert_type(SpanContextStack.peek(), str | None)
    assert_type(SpanContextStack.pop(), str | None)
    assert_type(SpanContextStack.get_stack(), list[str])
    assert_type(SpanContextStack.depth(), int)
    assert_type(SpanContextStack.is_empty(), bool)
    assert_type(validate_idempotency_key(generate_idempotency_key()), str)
    assert_type(build_runtime_environment(CORE_SDK_HEADER_ENTRY)["agent_sdk"], list[str])
    assert_type(__version__, str)


async def the_rest(client: PrefactorCoreClient, instance: AgentInstanceHandle) -> None:
    await instance.record_quality("accuracy", {"score": 0.9})
    await instance.record_quality("accuracy")
    await client.record_quality(instance.id, "accuracy")
    assert_type(instance.terminated, bool)
    assert_type(await client.flush(5), bool)
    assert_type(client.stats(), ClientStats)
    assert_type(client.termination_monitor.termination_reason, str | None)
    try:
        instance.raise_if_terminated()
    except PrefactorTerminatedError as error:
        assert_type(error.reason, str | None)
    assert_type(PrefactorCoreConfig.from_env(), PrefactorCoreConfig)
    warn_missing_adaptor_config(instance.id, "langchain", "create_client()")
