"""What a client takes, refuses and puts, with its API unavailable: what it puts can be looked at."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel

from prefactor_core import (
    AgentInstanceHandle,
    ClientAlreadyInitializedError,
    ClientClosedError,
    ClientNotInitializedError,
    InstanceNotFoundError,
    InvalidIdentifierError,
    InvalidInputError,
    InvalidPayloadError,
    PrefactorCoreClient,
    PrefactorCoreConfig,
    SchemaRegistry,
    SpanContext,
    SpanContextStack,
    SpanManager,
    SpanNotFoundError,
)
from prefactor_core.identifiers import PfidFactory
from prefactor_core.operations import Operation
from prefactor_core.payloads import UNSERIALISABLE_KEY
from tests.client.load import VERSION, client_for, new_instance, nowhere
from tests.support.fleet import until
from tests.support.recording import RecordingQueue

AN_ID = PfidFactory().new()
NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001 -- the point
REGISTER, START, FINISH = (f"{step}_agent_instance" for step in ("register", "start", "finish"))


@pytest.fixture
def queue() -> RecordingQueue:
    return RecordingQueue()


@pytest.fixture
async def client(queue: RecordingQueue) -> AsyncIterator[PrefactorCoreClient]:
    client = client_for(nowhere(), queue)
    await client.initialize()
    yield client
    await client.close(timeout=0)


@pytest.fixture
async def instance(client: PrefactorCoreClient, queue: RecordingQueue) -> AgentInstanceHandle:
    """An instance that is under way; its own operations are not in the record."""
    handle = await new_instance(client)
    await handle.start()
    queue.puts.clear()
    return handle


def types(queue: RecordingQueue) -> list[str]:
    return [operation.type.value for operation in queue.puts]


async def field_of(call: Awaitable[object]) -> str | None:
    """Return the field that a call is refused for, ``None`` where it is not refused."""
    try:
        await call
    except InvalidInputError as error:
        return error.field if str(error).startswith(f"{error.field}: ") else str(error)
    return None


# -- life


async def test_calls_before_initialize_and_after_close_are_refused() -> None:
    client = client_for("http://127.0.0.1:9")
    with pytest.raises(ClientNotInitializedError, match="initialize"):
        await client.create_span(AN_ID, "t:outer")
    for name in ("stats", "instance_manager"):
        with pytest.raises(ClientNotInitializedError):
            getattr(client, name)()
    assert (await client.close()).put == 0
    await client.initialize()
    assert client._initialized
    with pytest.raises(ClientAlreadyInitializedError):
        await client.initialize()
    scope = (await new_instance(client)).span("t:outer")
    span = await scope.__aenter__()
    await client.close(timeout=0)
    assert [client._initialized] == [False]
    with pytest.raises(ClientClosedError, match="again"):
        async with client.span(AN_ID, "t:outer"):
            pass
    with pytest.raises(ClientClosedError):
        await new_instance(client)
    for step in (span.start, span.complete, span.fail, span.cancel, span.finish):
        with pytest.raises(ClientClosedError):
            await step()
    SpanContextStack.pop()


async def test_what_a_client_cannot_be_initialised_with() -> None:
    closed = RecordingQueue()
    await closed.close()
    with pytest.raises(InvalidInputError, match="queue"):
        await client_for("http://127.0.0.1:9", closed).initialize()
    with pytest.raises(InvalidInputError, match="http_config"):
        await PrefactorCoreClient(PrefactorCoreConfig()).initialize()


async def test_calls_may_come_from_any_loop_and_from_the_clients_own(
    client: PrefactorCoreClient, queue: RecordingQueue, instance: AgentInstanceHandle
) -> None:
    loop = asyncio.get_running_loop()

    async def call() -> str:
        return await instance.create_span("t:outer")

    def other_thread(span: SpanContext) -> None:
        for step in (span.start, span.complete, span.cancel):
            asyncio.run(step())
        own = asyncio.run(call())
        handed_over = asyncio.run_coroutine_threadsafe(call(), loop).result(5)
        asyncio.run(instance.finish_span(handed_over))
        asyncio.run_coroutine_threadsafe(instance.finish_span(own), loop).result(5)
        asyncio.run(new_instance(client))

    async with instance.span("t:outer") as span:
        thread = threading.Thread(target=other_thread, args=(span,))
        thread.start()
        await asyncio.to_thread(thread.join)
    life = ["create_span", "finish_span"]
    assert types(queue) == [*life, "create_span", *life, "finish_span", REGISTER]


async def test_a_cancelled_close_says_what_it_left_and_leaves_nothing_running(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = client_for(nowhere())
    await client.initialize()
    await new_instance(client)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.close(timeout=60)
    assert "closed with 0 of 1 operations delivered" in caplog.text
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_queue_that_fails_to_close_fails_the_close() -> None:
    class Broken(RecordingQueue):
        async def close(self, num_waiters: int = 1) -> None:
            await super().close(num_waiters)
            raise OSError("broken")

    client = client_for(nowhere(), Broken())
    await client.initialize()
    for _ in range(2):
        with pytest.raises(OSError, match="broken"):
            await client.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}, "it has let go of everything all the same"


async def test_a_flush_that_comes_to_nothing_says_so(client: PrefactorCoreClient) -> None:
    assert await client.flush(1)
    await new_instance(client)
    assert not await client.flush(0.05)
    assert (await client.close(timeout=0)).left == 1


def test_the_sdk_header_is_read_late_and_has_to_fit_a_header() -> None:
    client = PrefactorCoreClient(PrefactorCoreConfig(), sdk_header_entry="one@1")
    assert client._header().startswith("one@1 prefactor-core@")
    client._set_sdk_header_entry("two@2")
    assert client._header().startswith("two@2 prefactor-core@")
    for entry in ("\u0438@1", "two\nlines"):
        with pytest.raises(InvalidInputError, match="sdk_header_entry"):
            client._set_sdk_header_entry(entry)


# -- instances


async def test_an_instance_is_awaited_or_entered(client: PrefactorCoreClient, queue: RecordingQueue) -> None:
    async with client.create_agent_instance(agent_version=VERSION) as entered:
        assert isinstance(entered, AgentInstanceHandle)
    # What was never started is started before it is finished.
    assert types(queue) == [REGISTER, START, FINISH]
    handle = await new_instance(client)
    for _ in range(2):
        await handle.start()
        await handle.finish("failed")
    assert types(queue)[3:] == [REGISTER, START, FINISH]
    assert queue.puts[-1].payload["status"] == "failed"
    for raised, status in ((ValueError("no"), "failed"), (asyncio.CancelledError(), "cancelled")):
        with pytest.raises(type(raised)):
            async with client.create_agent_instance(agent_version=VERSION):
                raise raised
        assert queue.puts[-1].payload["status"] == status
    first = await new_instance(client)
    queue.puts.clear()
    async with first.span("t:outer"), first.span("t:inner"):
        pass
    await first.start()
    await first.finish()
    # What nobody started starts with its first span.
    assert types(queue) == [START, "create_span", "create_span", "finish_span", "finish_span", FINISH]


async def test_bad_registrations_are_refused_before_anything_is_queued(
    client: PrefactorCoreClient, queue: RecordingQueue
) -> None:
    long = {**VERSION, "d": "x" * 600_000}
    rows: list[tuple[dict[str, Any], str]] = [
        ({}, "agent_version"),
        ({"agent_version": "1.0"}, "agent_version"),
        ({"agent_version": VERSION, "agent_id": ""}, "agent_id"),
        ({"agent_version": VERSION, "agent_id": 7}, "agent_id"),
        ({"agent_version": VERSION, "environment_id": ""}, "environment_id"),
        ({"agent_version": VERSION, "instance_id": "a-b"}, "instance_id"),
        ({"agent_version": VERSION, "purpose": "fun"}, "purpose"),
        ({"agent_version": VERSION, "external_identifier": ""}, "external_identifier"),
        ({"agent_version": {**VERSION, "x": {"y": [float("nan")]}}}, "agent_version.x.y[0]"),
        ({"agent_version": VERSION, "agent_schema_version": {"s": object()}}, "agent_schema_version.s"),
        ({"agent_version": long, "agent_schema_version": {"s": "x" * 600_000}}, "agent_schema_version"),
    ]
    found = [await field_of(client.create_agent_instance(**arguments)) for arguments, _ in rows]
    assert found == [field for _, field in rows]
    client._config.schema_registry = None
    with pytest.raises(ValueError, match="schema_registry"):
        await new_instance(client)
    assert queue.put_count == 0


async def test_what_a_registration_says(client: PrefactorCoreClient, queue: RecordingQueue) -> None:
    """Equal registries have equal ids and others do not; the runtime environment is added unless given."""
    found = []
    for names in (["a", "ü"], ["ü", "a"], ["a", "c"]):
        registry = SchemaRegistry()
        for name in names:
            registry.register(name, {"type": "object", "properties": {}})
        client._config.schema_registry = registry
        await new_instance(client)
        found.append(queue.puts[-1].payload["agent_schema_version"]["external_identifier"])
    assert found[0] == found[1] == "sha256:9ad89be9ff65a82b4b916ea59a2f330c" != found[2]
    await client.create_agent_instance(agent_version=VERSION, external_schema_version_id="mine-1")
    assert queue.puts[-1].payload["agent_schema_version"]["external_identifier"] == "mine-1"

    client._set_sdk_header_entry("prefactor-langchain@0.3.0")
    await new_instance(client)
    runtime = queue.puts[-1].payload["agent_version"]["runtime_environment"]
    assert runtime["agent_sdk"] == ["prefactor-langchain@0.3.0"]
    given = {**VERSION, "runtime_environment": {"os": "plan9"}}
    await client.create_agent_instance(agent_version=given)
    assert queue.puts[-1].payload["agent_version"]["runtime_environment"] == {"os": "plan9"}

    # What it takes of these is the API's to say.
    named = await client.create_agent_instance(
        "books", {"name": "x"}, environment_id="staging", purpose="eval"
    )
    said = queue.puts[-1].payload
    assert (said["agent_id"], said["environment_id"], said["purpose"]) == ("books", "staging", "eval")
    assert said["agent_version"].keys() == {"name", "runtime_environment"}
    assert client.instance_manager.get(named.id).purpose == "eval"

    agent_id = PfidFactory().new()
    instance = await client.create_agent_instance(agent_id, VERSION)
    span_id = await instance.create_span("t:outer")
    # Characters 10 to 15 hold nothing but partition bits: ids of an account share its partition.
    assert agent_id[10:16] == instance.id[10:16] == span_id[10:16]


async def test_any_object_that_gives_a_schema_version_is_a_registry(
    client: PrefactorCoreClient, queue: RecordingQueue
) -> None:
    class Foreign:
        def to_agent_schema_version(self, external_id: str) -> dict[str, Any]:
            return {"external_identifier": external_id, "span_schemas": {"a": {"type": "object"}}}

    client._config.schema_registry = Foreign()
    await new_instance(client)
    sent = queue.puts[-1].payload["agent_schema_version"]
    assert sent["span_schemas"] == {"a": {"type": "object"}}
    assert sent["external_identifier"].startswith("sha256:")


async def test_instances_are_known_until_they_are_finished(
    client: PrefactorCoreClient, queue: RecordingQueue
) -> None:
    manager = client.instance_manager
    handle = await new_instance(client)
    assert manager.get(handle.id).status == "pending"
    await handle.start(datetime(2026, 1, 2, tzinfo=UTC))
    assert manager.get(handle.id).started_at == datetime(2026, 1, 2, tzinfo=UTC)
    assert queue.puts[-1].payload["timestamp"] == "2026-01-02T00:00:00+00:00"
    await handle.record_quality("tone", {"score": 1})
    await handle.record_quality("accuracy", {"score": 2})
    await handle.record_quality("tone")
    assert manager.get(handle.id).quality_payloads == {"accuracy": {"score": 2}}
    statuses: list[Any] = ["", "done", "terminated", "active"]
    for status in statuses:
        with pytest.raises(ValueError, match="status"):
            await handle.finish(status)
    await handle.finish()
    assert queue.puts[-1].payload["status"] == "complete"
    with pytest.raises(InstanceNotFoundError):
        manager.get(handle.id)


async def test_managers_take_keys_of_the_callers(client: PrefactorCoreClient, queue: RecordingQueue) -> None:
    manager = client.instance_manager
    await manager.start_with_idempotency_key(AN_ID, "k" * 64)
    await manager.finish_with_idempotency_key(AN_ID, "k", "cancelled")
    assert [operation.idempotency_key for operation in queue.puts] == ["k" * 64, "k"]
    for key in ("", "k" * 65):
        with pytest.raises(ValueError, match="idempotency_key"):
            await manager.start_with_idempotency_key(AN_ID, key)
    assert len(queue.puts) == 2


async def test_spans_of_an_instance_that_another_process_owns(
    client: PrefactorCoreClient, queue: RecordingQueue
) -> None:
    handle = AgentInstanceHandle(AN_ID, client)
    async with handle.span("t:outer"):
        pass
    await handle.finish()
    assert types(queue) == ["create_span", "finish_span", FINISH]


# -- what is refused of spans and qualities


async def test_bad_spans_are_refused_before_anything_is_queued(
    client: PrefactorCoreClient, queue: RecordingQueue
) -> None:
    async def enter(**call: Any) -> None:
        async with client.span(**call):
            pytest.fail("the span was opened")

    rows: list[tuple[dict[str, Any], str]] = [
        ({"instance_id": "instance-1"}, "instance_id"),
        ({"instance_id": ""}, "instance_id"),
        ({"schema_name": ""}, "schema_name"),
        ({"schema_name": None}, "schema_name"),
        ({"schema_name": "x" * 2_000}, "schema_name"),
        ({"parent_span_id": ""}, "parent_span_id"),
        ({"parent_span_id": "span-1"}, "parent_span_id"),
        ({"payload": {"a": [{"b": float("inf")}]}}, "payload.a[0].b"),
        ({"payload": {"a": object()}}, "payload.a"),
        ({"payload": ["no", "object"]}, "payload"),
        ({"payload": {"a": "x" * 1024 * 1024}}, "payload"),
    ]
    for arguments, field in rows:
        call = {"instance_id": AN_ID, "schema_name": "t:outer", **arguments}
        found = await field_of(client.create_span(**call)), await field_of(enter(**call))
        assert found == (field, field), str(arguments)[:100]
    assert SpanContextStack.is_empty()
    qualities: list[tuple[tuple[str, str, Any], str]] = [
        (("no-id", "accuracy", {}), "instance_id"),
        ((AN_ID, "", {}), "name"),
        ((AN_ID, "accuracy", {"x": float("nan")}), "payload.x"),
        ((AN_ID, "accuracy", [1]), "payload"),
    ]
    refused = [await field_of(client.record_quality(*arguments)) for arguments, _ in qualities]
    assert refused == [field for _, field in qualities]
    assert queue.put_count == 0


async def test_a_time_without_a_zone_is_utc(client: PrefactorCoreClient, queue: RecordingQueue) -> None:
    instance = await new_instance(client)
    await instance.start(NAIVE)
    await instance.finish_span(await instance.create_span("t:outer", started_at=NAIVE), timestamp=NAIVE)
    for step in ("complete", "fail", "cancel"):
        async with instance.span("t:outer") as span:
            await span.start(started_at=NAIVE)
            await getattr(span, step)(timestamp=NAIVE)
    async with instance.span("t:outer") as span:
        await span.cancel(NAIVE)
    await instance.finish(timestamp=NAIVE)
    times = [
        operation.payload.get("started_at") or operation.payload.get("timestamp") for operation in queue.puts
    ]
    pending = times.pop(-3)
    assert (times[0], pending) == (None, None), "the registration, and the span that never began"
    assert set(times[1:]) == {"2026-01-01T00:00:00+00:00"}


async def test_what_is_no_time_is_refused_and_leaves_everything_as_it_was(
    client: PrefactorCoreClient, queue: RecordingQueue
) -> None:
    instance = await new_instance(client)
    now: Any = "now"
    for call in (
        instance.start(now),
        instance.finish(timestamp=now),
        instance.create_span("t:outer", started_at=now),
    ):
        with pytest.raises(InvalidInputError, match="datetime"):
            await call
    assert types(queue) == [REGISTER]
    for step in ("complete", "fail", "cancel"):
        async with instance.span("t:outer") as span:
            with pytest.raises(InvalidInputError, match="timestamp"):
                await getattr(span, step)(timestamp=now)
        assert queue.puts[-1].span_id == span.id
        assert queue.puts[-1].payload["status"] == "complete"
        assert SpanContextStack.is_empty()


def tick() -> datetime:
    """Return the time once it is later than at the call, and not yet what comes next."""
    before = datetime.now(UTC)
    while (now := datetime.now(UTC)) == before:
        pass
    return now


async def test_a_span_that_nobody_started_begins_where_its_block_was_entered(
    client: PrefactorCoreClient, queue: RecordingQueue
) -> None:
    instance = await new_instance(client)
    earliest: dict[str, datetime] = {}
    latest: dict[str, datetime] = {}

    async def enter(level: str) -> SpanContext:
        earliest[level] = tick()
        span = await stack.enter_async_context(instance.span("t:outer", payload={"level": level}))
        latest[level] = tick()
        return span

    async with AsyncExitStack() as stack:
        await enter("outer")
        await enter("middle")
        by_hand = await instance.create_span("t:inner", payload={"level": "by hand"})
        inner = await enter("inner")
        earliest["started"] = tick()
        await inner.start({"level": "started"})
        latest["started"] = tick()
        await instance.finish_span(by_hand)
    async with AsyncExitStack() as stack:
        await enter("alone")
    creates = [operation.payload for operation in queue.puts if operation.type.value == "create_span"]
    began = {create["payload"]["level"]: datetime.fromisoformat(create["started_at"]) for create in creates}
    assert began.keys() == {"outer", "middle", "by hand", "started", "alone"}
    for level in ("outer", "middle", "started", "alone"):
        assert earliest[level] <= began[level] < latest[level], level
    assert latest["middle"] < began["by hand"] < earliest["inner"], "where it was created"
    (start,) = [operation.payload for operation in queue.puts if operation.type.value == START]
    assert datetime.fromisoformat(start["timestamp"]) == began["outer"], "no span begins before its instance"


async def test_ids_and_keys_of_the_callers(
    client: PrefactorCoreClient, queue: RecordingQueue, instance: AgentInstanceHandle
) -> None:
    session = client._session
    assert session is not None
    spans, mine = SpanManager(session.spans), PfidFactory().new()
    assert await spans.create(instance.id, "t:outer", span_id=mine) == mine
    for taken in (mine, "mine"):
        with pytest.raises(InvalidIdentifierError, match="span_id"):
            await spans.create(instance.id, "t:outer", span_id=taken)
    with pytest.raises(ValueError, match="idempotency_key"):
        await spans.finish(mine, idempotency_key="")
    await spans.finish(mine, idempotency_key="a-key-of-mine")
    assert [operation.idempotency_key for operation in queue.puts] == [f"{mine}:create", "a-key-of-mine"]


async def test_a_schema_name_that_the_version_lacks_is_warned_of_once(
    client: PrefactorCoreClient, queue: RecordingQueue, caplog: pytest.LogCaptureFixture
) -> None:
    client._config.schema_registry.register_result("t:result", {"type": "object"})
    client._config.schema_registry.register_type("t:type", {"type": "object"})
    by_registry = await new_instance(client)
    given = {"external_identifier": "1", "span_schemas": {"mine": {}}}
    by_dict = await client.create_agent_instance(agent_version=VERSION, agent_schema_version=given)
    bare = await client.create_agent_instance(
        agent_version=VERSION, agent_schema_version={"external_identifier": "known to the API"}
    )
    for instance, name in (
        (by_registry, "t:result"),
        (by_registry, "t:type"),
        (by_dict, "mine"),
        (bare, "anything"),
        (AgentInstanceHandle(AN_ID, client), "anything"),
    ):
        await instance.create_span(name)
    assert caplog.text == ""
    for _ in range(2):
        async with by_registry.span("t:uoter"):
            pass
        await by_dict.create_span("elsewhere")
    assert [record.getMessage() for record in caplog.records] == [
        f"prefactor: no schema named {name} is registered{hint}: its spans are recorded, and flagged"
        for name, hint in (("'t:uoter'", " (did you mean 't:outer'?)"), ("'elsewhere'", ""))
    ]
    assert types(queue).count("create_span") == 5 + 4


async def test_finishing_what_is_not_open(client: PrefactorCoreClient, instance: AgentInstanceHandle) -> None:
    span_id = await instance.create_span("t:outer")
    await instance.finish_span(span_id)
    for unknown in (span_id, PfidFactory().new()):
        with pytest.raises(SpanNotFoundError, match=unknown):
            await instance.finish_span(unknown)
        with pytest.raises(KeyError):
            await client.finish_span(unknown)
    with pytest.raises(InvalidIdentifierError, match="span_id"):
        await instance.finish_span("span-1")


# -- payloads


async def test_start_refuses_a_bad_payload_and_can_be_repeated(
    queue: RecordingQueue, instance: AgentInstanceHandle
) -> None:
    async with instance.span("t:outer") as span:
        with pytest.raises(InvalidPayloadError) as caught:
            await span.start({"messages": [{"score": float("nan")}]})
        assert caught.value.field == "payload.messages[0].score"
        assert types(queue) == []
        await span.start({"messages": []})
    assert types(queue) == ["create_span", "finish_span"]


async def test_a_bad_payload_never_costs_the_agent_its_answer(
    queue: RecordingQueue, instance: AgentInstanceHandle, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        async with instance.span("t:outer") as span:
            await span.complete({"answer": object()})
        marker = queue.puts[-1].payload["result_payload"][UNSERIALISABLE_KEY]
        assert "result_payload.answer" in marker
    assert caplog.text.count("is recorded without its result_payload") == 1
    span_id = await instance.create_span("t:inner")
    await instance.finish_span(span_id, {"x": float("nan")})
    assert UNSERIALISABLE_KEY in queue.puts[-1].payload["result_payload"]
    results: list[Any] = ["words", ["a", "list"], 5, object()]
    for result in results:
        async with instance.span("t:outer") as span:
            span.set_result({"kept": 1})
            await span.complete(result)
        sent = queue.puts[-1].payload["result_payload"]
        assert sent["kept"] == 1, result
        assert UNSERIALISABLE_KEY in sent, result
    async with instance.span("t:outer") as span:
        span.set_payload({"bad": object()})
    create = queue.puts[-2]
    assert create.type.value == "create_span"
    assert UNSERIALISABLE_KEY in create.payload["payload"]


async def test_payloads_merge_before_the_start_and_warn_after(
    queue: RecordingQueue, instance: AgentInstanceHandle, caplog: pytest.LogCaptureFixture
) -> None:
    given = {"a": 1, "b": 1}
    for _ in range(10):
        async with instance.span("t:outer", payload=given) as span:
            span.set_payload({"b": 2, "c": 3})
            identity = span.id
            await span.start()
            assert span.id == identity
            await span.start({"ignored": True})
            span.set_payload({"late": True})
            span.set_result({"x": 1})
            await span.complete({"y": 2})
            await span.fail({"never": True})
            await span.finish()
    create, finish = queue.puts[-2:]
    assert create.payload["payload"] == {"a": 1, "b": 2, "c": 3}
    assert create.payload["status"] == "active"
    assert finish.payload["result_payload"] == {"x": 1, "y": 2}
    assert finish.payload["status"] == "complete"
    assert given == {"a": 1, "b": 1}
    assert caplog.text.count("set_payload() after the start") == 1, "told once"
    assert len(queue.puts) == 2 * 10


async def test_a_payload_is_what_it_was_at_the_call(
    client: PrefactorCoreClient, queue: RecordingQueue, instance: AgentInstanceHandle
) -> None:
    messages: list[Any] = ["question"]
    payload: Any = {"messages": messages, "numbers": iter([1, 2]), "card": "4111"}
    result = {"kept": ["answer"]}
    async with instance.span("t:outer", payload=payload) as span:
        messages.append(object())
        span.set_result(result)
        result["kept"].append("later")
        session = client._session
        assert session is not None
        assert "4111" not in repr(SpanManager(session.spans).get_span(span.id)), "no payload is in a repr"
    create, finish = queue.puts
    assert create.payload["payload"] == {"messages": ["question"], "numbers": [1, 2], "card": "4111"}
    assert finish.payload["result_payload"] == {"kept": ["answer"]}
    by_hand = {"list": [1]}
    await instance.create_span("t:outer", payload=by_hand)
    by_hand["list"].append(2)
    assert queue.puts[-1].payload["payload"] == {"list": [1]}


@dataclass
class Question:
    text: str
    asked: datetime


class Answer(BaseModel):
    text: str
    score: float


async def test_dataclasses_and_models_are_welcome_wherever_a_dict_is(
    queue: RecordingQueue, instance: AgentInstanceHandle
) -> None:
    question: Any = Question("why?", datetime(2026, 1, 1, tzinfo=UTC))
    answer: Any = Answer(text="because", score=0.5)
    async with instance.span("t:outer", payload=question) as span:
        span.set_payload(answer)
        span.set_result(answer)
        await span.complete(question)
    create, finish = queue.puts
    both = {"asked": "2026-01-01T00:00:00Z", "score": 0.5}
    assert create.payload["payload"] == {"text": "because", **both}
    assert finish.payload["result_payload"] == {"text": "why?", **both}
    async with instance.span("t:outer") as span:
        await span.start(question)
    assert queue.puts[-2].payload["payload"]["text"] == "why?"


# -- how spans end


async def test_cancelling_before_and_after_the_start(
    queue: RecordingQueue, instance: AgentInstanceHandle
) -> None:
    async with instance.span("t:outer", payload={"prepared": 1}) as before:
        before.set_payload({"added": 2})
        await before.cancel()
        await before.cancel()
    async with instance.span("t:outer") as after:
        await after.start()
        await after.cancel()
    statuses = [operation.payload.get("status") for operation in queue.puts]
    assert statuses == ["pending", "cancelled", "active", "cancelled"]
    assert "started_at" not in queue.puts[0].payload
    assert queue.puts[0].payload["payload"] == {"prepared": 1, "added": 2}


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("started", [True, False])
async def test_an_exception_in_the_body(
    queue: RecordingQueue, instance: AgentInstanceHandle, started: bool
) -> None:
    rows: list[tuple[BaseException, str, dict[str, Any] | None]] = [
        (ValueError("broken"), "failed", {"type": "ValueError", "message": "broken"}),
        (asyncio.CancelledError(), "cancelled", None),
        (KeyboardInterrupt(), "failed", {"type": "KeyboardInterrupt", "message": ""}),
    ]
    for raised, status, error in rows:
        with pytest.raises(type(raised)):
            async with instance.span("t:outer") as span:
                if started:
                    await span.start()
                raise raised
        assert queue.puts[-1].payload["status"] == status, raised
        assert queue.puts[-1].payload.get("result_payload") == (error and {"error": error}), raised
    with pytest.raises(UnspeakableError):
        async with instance.span("t:outer"):
            raise UnspeakableError
    assert "no message" in queue.puts[-1].payload["result_payload"]["error"]["message"]


async def test_leaving_a_stream_early_cancels_its_span(
    queue: RecordingQueue, instance: AgentInstanceHandle
) -> None:
    async def stream() -> AsyncIterator[int]:
        async with instance.span("t:outer"):
            for token in range(10):
                yield token

    tokens = stream()
    assert await anext(tokens) == 0
    await tokens.aclose()  # type: ignore[attr-defined] # a generator, whatever its annotation
    assert queue.puts[-1].payload["status"] == "cancelled"

    queue.puts.clear()
    async for _ in stream():
        break
    await until(lambda: types(queue) == ["create_span", "finish_span"])
    assert queue.puts[-1].payload["status"] == "cancelled"


@pytest.mark.parametrize("collect", ["here", "in a thread"])
async def test_a_span_that_is_dropped_without_an_end_is_finished(
    queue: RecordingQueue, instance: AgentInstanceHandle, caplog: pytest.LogCaptureFixture, collect: str
) -> None:
    async def drop() -> None:
        span = await instance.span("t:outer", payload={"question": 1}).__aenter__()
        span.set_result({"answer": 2})
        span.itself = span  # type: ignore[attr-defined] # a cycle, so that the collector finds it

    for _ in range(2):
        queue.puts.clear()
        await drop()
        assert types(queue) == []
        if collect == "in a thread":
            await asyncio.to_thread(gc.collect)
        else:
            gc.collect()
        await until(lambda: types(queue) == ["create_span", "finish_span"])
        create, finish = (operation.payload for operation in queue.puts)
        assert (create["payload"], finish["result_payload"]) == ({"question": 1}, {"answer": 2})
        assert finish["status"] == "complete"
    assert caplog.text.count("dropped without an end") == 1
    assert SpanContextStack.is_empty()


async def test_a_span_that_is_dropped_after_its_end_or_its_client_is_left_alone(
    client: PrefactorCoreClient,
    queue: RecordingQueue,
    instance: AgentInstanceHandle,
    caplog: pytest.LogCaptureFixture,
) -> None:
    span = await instance.span("t:outer").__aenter__()
    await instance.finish_span(span.id)
    held = await instance.span("t:outer").__aenter__()
    put = len(queue.puts)
    await client.close(timeout=0)
    del span, held
    gc.collect()
    await asyncio.sleep(0)
    assert len(queue.puts) == put
    assert "dropped without an end" not in caplog.text


async def test_a_context_whose_span_was_finished_by_id_has_nothing_to_finish(
    queue: RecordingQueue, instance: AgentInstanceHandle
) -> None:
    async with instance.span("t:outer") as span:
        await instance.finish_span(span.id)
        await span.start({"late": 1})
        span.set_payload({"late": 2})
    assert types(queue) == ["create_span", "finish_span"]


# -- parents


async def test_spans_that_another_task_ends_are_nobodys_parent(
    queue: RecordingQueue, instance: AgentInstanceHandle
) -> None:
    scope = instance.span("t:outer")
    await scope.__aenter__()
    await asyncio.create_task(scope.__aexit__(None, None, None))
    # This task entered it, and must not take it for a parent any more.
    assert SpanContextStack.peek() is None
    assert await instance.create_span("t:inner") == queue.puts[-1].span_id
    assert "parent_span_id" not in queue.puts[-1].payload
    await instance.finish_span(queue.puts[-1].span_id or "")
    for _ in range(300):
        span_id = await instance.create_span("t:outer")
        await asyncio.create_task(instance.finish_span(span_id))
    assert SpanContextStack.depth() == 0, "a long-lived task collects nothing"


async def test_a_parent_comes_only_from_the_same_instance(
    client: PrefactorCoreClient, queue: RecordingQueue, instance: AgentInstanceHandle
) -> None:
    second = await new_instance(client)
    async with instance.span("t:outer") as outer, second.span("t:outer") as other:
        async with instance.span("t:inner") as inner:
            await inner.start()
        assert queue.puts[-1].payload["span_id"] == inner.id
        create = next(op for op in queue.puts if op.idempotency_key == f"{inner.id}:create")
        assert create.payload["parent_span_id"] == outer.id
        with pytest.raises(InvalidIdentifierError, match="parent_span_id"):
            await instance.create_span("t:inner", parent_span_id=other.id)
        elsewhere = PfidFactory().new()
        await instance.create_span("t:inner", parent_span_id=elsewhere)
        assert queue.puts[-1].payload["parent_span_id"] == elsewhere


async def test_deep_stacks_of_two_clients_do_not_lose_each_others_parents(
    queue: RecordingQueue, instance: AgentInstanceHandle
) -> None:
    other = client_for(nowhere(), RecordingQueue())
    await other.initialize()
    elsewhere = await new_instance(other)
    root = await instance.create_span("t:outer")
    for _ in range(100):
        await elsewhere.create_span("t:inner")
    async with instance.span("t:inner") as child:
        await child.start()
        assert queue.puts[-1].payload["parent_span_id"] == root
    await other.close(timeout=0)


async def test_ancestors_that_were_not_started_go_first(
    queue: RecordingQueue, instance: AgentInstanceHandle, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        instance.span("t:outer", payload={"level": 1}) as one,
        instance.span("t:outer", payload={"level": 2}) as two,
        instance.span("t:outer") as three,
    ):
        await three.start({"level": 3})
        put: list[Operation] = queue.puts[:]
        assert [(operation.span_id, operation.payload["payload"]) for operation in put] == [
            (one.id, {"level": 1}),
            (two.id, {"level": 2}),
            (three.id, {"level": 3}),
        ]
        await two.start({"too": "late"})
        await one.start()
    assert len(queue.puts) == 6
    assert caplog.text.count("came too late") == 1


async def test_nothing_is_kept_of_finished_spans(
    client: PrefactorCoreClient, instance: AgentInstanceHandle
) -> None:
    session = client._session
    assert session is not None
    for _ in range(50):
        async with instance.span("t:outer"):
            await instance.finish_span(await instance.create_span("t:inner"))
    assert session.spans.open_spans == 0
    records = session.spans._entrance.records
    assert [record.spans for record in records.all()] == [{}]
    left_open = await instance.create_span("t:inner")
    await instance.finish()
    await instance.finish_span(left_open)
    assert session.spans.open_spans == 0
    assert not session.spans._orphans
    assert not records.all()
