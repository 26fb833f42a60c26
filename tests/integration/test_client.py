"""The client's life and its refusals."""

import asyncio
import os
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

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
    OperationType,
    PrefactorCoreClient,
    PrefactorCoreConfig,
    PrefactorTelemetryFailureError,
    Queue,
    QueueClosedError,
    SchemaRegistry,
    SpanContextStack,
    SpanNotFoundError,
    WrongEventLoopError,
)
from prefactor_core.identifiers import PfidFactory
from prefactor_core.operations import Operation
from prefactor_core.payloads import UNSERIALISABLE_KEY
from tests.integration.load import client_for
from tests.support.emulator import Emulator, running_emulator
from tests.support.ports import free_port
from tests.support.recording import Comparison, RecordingQueue, compare

VERSION = {"name": "client", "external_identifier": "1"}
AN_ID = PfidFactory().new()


class Away:
    """A client whose API is unavailable: what it puts stays where the test can look at it."""

    def __init__(self) -> None:
        self.queue = RecordingQueue()
        self.client = client_for(f"http://127.0.0.1:{free_port()}", self.queue)

    async def __aenter__(self) -> Self:
        await self.client.initialize()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close(timeout=0)

    async def instance(self) -> AgentInstanceHandle:
        return await self.client.create_agent_instance(agent_version=VERSION)

    async def started(self) -> AgentInstanceHandle:
        """Return an instance that is under way, with the record empty again."""
        handle = await self.instance()
        await handle.start()
        self.queue.puts.clear()
        return handle

    def types(self) -> list[str]:
        return [operation.type.value for operation in self.queue.puts]

    def last(self) -> Operation:
        return self.queue.puts[-1]


# -- life


async def test_calls_before_initialize_and_after_close_are_refused() -> None:
    client = client_for("http://127.0.0.1:9")
    with pytest.raises(ClientNotInitializedError, match="initialize"):
        await client.create_span(AN_ID, "t:outer")
    with pytest.raises(ClientNotInitializedError):
        _ = client.instance_manager
    assert (await client.close()).put == 0
    await client.initialize()
    assert [client._initialized] == [True]
    with pytest.raises(ClientAlreadyInitializedError):
        await client.initialize()
    await client.close(timeout=0)
    assert [client._initialized] == [False]
    with pytest.raises(ClientClosedError, match="again"):
        async with client.span(AN_ID, "t:outer"):
            pass
    with pytest.raises(ClientClosedError):
        await client.create_agent_instance(agent_version=VERSION)


async def test_a_closed_client_can_be_initialised_again(tmp_path: Path) -> None:
    async with running_emulator(tmp_path) as emulator:
        client = client_for(emulator.url)
        for _ in range(2):
            async with client, client.create_agent_instance(agent_version=VERSION) as instance:
                await instance.start()
        assert len(await emulator.effects()) == 6


async def test_a_closed_queue_is_refused() -> None:
    queue = RecordingQueue()
    await queue.close()
    with pytest.raises(InvalidInputError, match="queue"):
        await client_for("http://127.0.0.1:9", queue).initialize()


async def test_sending_from_this_process_needs_to_know_the_api() -> None:
    with pytest.raises(InvalidInputError, match="http_config"):
        await PrefactorCoreClient(PrefactorCoreConfig()).initialize()


async def test_a_call_from_another_loop_is_refused_and_can_be_handed_over() -> None:
    async with Away() as away:
        instance = await away.started()
        loop = asyncio.get_running_loop()
        caught: list[BaseException] = []

        async def call() -> str:
            return await instance.create_span("t:outer")

        def other_thread() -> None:
            try:
                asyncio.run(call())
            except WrongEventLoopError as error:
                caught.append(error)
            span_id = asyncio.run_coroutine_threadsafe(call(), loop).result(5)
            asyncio.run_coroutine_threadsafe(instance.finish_span(span_id), loop).result(5)
            request = away.client.create_agent_instance(agent_version=VERSION)
            asyncio.run_coroutine_threadsafe(request, loop).result(5)

        thread = threading.Thread(target=other_thread)
        thread.start()
        await asyncio.to_thread(thread.join)
        assert "run_coroutine_threadsafe" in str(caught[0])
        assert away.types() == [
            "create_span",
            "finish_span",
            "register_agent_instance",
        ]


async def test_a_forked_child_is_refused_and_its_parent_goes_on(tmp_path: Path) -> None:
    async with running_emulator(tmp_path) as emulator:
        queue = RecordingQueue()
        client = client_for(emulator.url, queue)
        await client.initialize()
        instance = await client.create_agent_instance(agent_version=VERSION)
        child = os.fork()
        if child == 0:
            try:
                asyncio.run(_call(instance))
            except WrongEventLoopError:
                os._exit(0)
            finally:
                os._exit(1)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        await instance.finish_span(await instance.create_span("t:outer"))
        await instance.finish()
        assert (await client.close()).complete
        assert compare(queue.puts, await emulator.effects()) == Comparison(0, 0, 0)


async def _call(instance: AgentInstanceHandle) -> None:
    await instance.create_span("t:outer")


async def test_the_users_exception_goes_before_closing() -> None:
    class MineError(Exception):
        pass

    client = client_for("http://127.0.0.1:9", retry_delay_base=0.01)
    client._config.close_timeout = 0
    with pytest.raises(MineError):
        async with client, client.create_agent_instance(agent_version=VERSION) as instance:
            await instance.start()
            raise MineError


# -- a refused token


async def test_a_refused_token_is_raised_by_the_calls_that_follow(tmp_path: Path) -> None:
    async with running_emulator(tmp_path, "--token", "another") as emulator:
        queue = RecordingQueue()
        client = client_for(emulator.url, queue)
        await client.initialize()
        instance = await client.create_agent_instance(agent_version=VERSION)
        await instance.start()
        with pytest.raises(PrefactorTelemetryFailureError, match="refuses the token") as caught:
            async with asyncio.timeout(20):
                while True:
                    await instance.finish_span(await instance.create_span("t:outer"))
                    await asyncio.sleep(0.01)
        assert caught.value.dropped_operations == len(queue.puts)
        assert isinstance(caught.value.cause, Exception)
        with pytest.raises(PrefactorTelemetryFailureError):
            async with instance.span("t:outer"):
                pass
        with pytest.raises(PrefactorTelemetryFailureError) as at_close:
            await client.close()
        assert at_close.value.dropped_operations == len(queue.puts)
        assert queue.unsettled == 0
        assert await emulator.effects() == []


async def test_a_refused_token_is_raised_by_a_close_that_comes_at_once(tmp_path: Path) -> None:
    async with running_emulator(tmp_path, "--token", "another") as emulator:
        for _ in range(10):
            queue = RecordingQueue()
            client = client_for(emulator.url, queue)
            await client.initialize()
            await client.create_agent_instance(agent_version=VERSION)
            with pytest.raises(PrefactorTelemetryFailureError) as caught:
                await client.close()
            assert caught.value.dropped_operations == 1
            assert queue.unsettled == 0


async def test_an_instance_whose_start_is_rejected_is_not_called_finished(tmp_path: Path) -> None:
    options = ("--fault", "reject:rate=1,status=422,type=agent_instances/start")
    async with running_emulator(tmp_path, *options) as emulator:
        queue = RecordingQueue()
        client = client_for(emulator.url, queue)
        await client.initialize()
        async with (
            client.create_agent_instance(agent_version=VERSION) as instance,
            instance.span("t:outer"),
        ):
            pass
        summary = await client.close()
        assert (summary.delivered, summary.dead_lettered) == (1, 4)
        reasons = [letter.reason for letter in queue.dead_letters()]
        assert reasons[0] == "rejected: HTTP 422 rejected"
        assert reasons[1:] == ["follows a lost operation: rejected: HTTP 422 rejected"] * 3


async def test_a_finish_of_an_instance_that_has_not_begun_is_a_conflict(tmp_path: Path) -> None:
    async with running_emulator(tmp_path) as emulator:
        async with client_for(emulator.url) as client:
            instance = await client.create_agent_instance(agent_version=VERSION)
        queue = RecordingQueue()
        other = client_for(emulator.url, queue)
        await other.initialize()
        await AgentInstanceHandle(instance.id, other).finish()
        assert (await other.close()).dead_lettered == 1
        (letter,) = queue.dead_letters()
        assert letter.reason == "conflict: HTTP 409 invalid_action"
        assert (await emulator.instance(instance.id))["status"] == "pending"


async def test_a_finish_of_an_instance_that_is_over_is_settled(tmp_path: Path) -> None:
    async with running_emulator(tmp_path) as emulator:
        queue = RecordingQueue()
        client = client_for(emulator.url, queue)
        await client.initialize()
        instance = await client.create_agent_instance(agent_version=VERSION)
        await instance.finish()
        await client.instance_manager.finish_with_idempotency_key(instance.id, "another-key", "failed")
        summary = await client.close()
        assert summary.complete
        assert (await emulator.instance(instance.id))["status"] == "complete"


async def test_a_failure_does_not_mask_the_agents_exception(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_emulator(tmp_path, "--token", "another") as emulator:
        client = client_for(emulator.url)
        with pytest.raises(ZeroDivisionError):
            async with (
                client,
                client.create_agent_instance(agent_version=VERSION) as instance,
                instance.span("t:outer"),
            ):
                async with asyncio.timeout(20):
                    while "refuses the token" not in caplog.text:
                        await asyncio.sleep(0.01)
                raise ZeroDivisionError
        assert "could not be ended" in caplog.text
        assert "could not be finished" in caplog.text


# -- instances


async def test_an_instance_is_awaited_or_entered() -> None:
    async with Away() as away:
        async with away.client.create_agent_instance(agent_version=VERSION) as instance:
            assert isinstance(instance, AgentInstanceHandle)
        assert away.types() == [
            "register_agent_instance",
            "start_agent_instance",  # what was never started is started before it is finished
            "finish_agent_instance",
        ]
        handle = await away.instance()
        for _ in range(2):
            await handle.start()
            await handle.finish("failed")
        assert away.types()[3:] == [
            "register_agent_instance",
            "start_agent_instance",
            "finish_agent_instance",
        ]
        assert away.last().payload["status"] == "failed"


@pytest.mark.parametrize(
    ("raised", "status"), [(ValueError("no"), "failed"), (asyncio.CancelledError(), "cancelled")]
)
async def test_leaving_an_instance_with_an_exception(raised: BaseException, status: str) -> None:
    async with Away() as away:
        with pytest.raises(type(raised)):
            async with away.client.create_agent_instance(agent_version=VERSION):
                raise raised
        assert away.last().payload["status"] == status


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "agent_version"),
        ({"agent_version": {}}, "agent_version.name"),
        ({"agent_version": "1.0"}, "agent_version"),
        ({"agent_version": {"name": "x"}}, "agent_version.external_identifier"),
        ({"agent_version": VERSION, "agent_id": ""}, "agent_id"),
        ({"agent_version": VERSION, "agent_id": "agent-1"}, "agent_id"),
        ({"agent_version": VERSION, "environment_id": "x" * 32}, "environment_id"),
        ({"agent_version": VERSION, "instance_id": "a-b"}, "instance_id"),
        ({"agent_version": VERSION, "purpose": "fun"}, "purpose"),
        ({"agent_version": VERSION, "external_identifier": ""}, "external_identifier"),
        ({"agent_version": {**VERSION, "x": {"y": [float("nan")]}}}, "agent_version.x.y[0]"),
        ({"agent_version": VERSION, "agent_schema_version": {"s": object()}}, "agent_schema_version.s"),
        (
            {"agent_version": {**VERSION, "d": "x" * 600_000}, "agent_schema_version": {"s": "x" * 600_000}},
            "agent_schema_version",
        ),
    ],
)
async def test_bad_registrations_are_refused_before_anything_is_queued(
    arguments: dict[str, Any], field: str
) -> None:
    async with Away() as away:
        with pytest.raises(InvalidInputError) as caught:
            await away.client.create_agent_instance(**arguments)
        assert caught.value.field == field
        assert str(caught.value).startswith(f"{field}: ")
        assert away.queue.accepted == 0


async def test_without_schemas_an_instance_is_refused() -> None:
    async with Away() as away:
        away.client._config.schema_registry = None
        with pytest.raises(ValueError, match="schema_registry"):
            await away.instance()


async def test_equal_registries_get_equal_external_ids_and_others_do_not() -> None:
    async with Away() as away:
        found = []
        for names in (["a", "b"], ["b", "a"], ["a", "c"]):
            registry = SchemaRegistry()
            for name in names:
                registry.register(name, {"type": "object", "properties": {}})
            away.client._config.schema_registry = registry
            await away.instance()
            found.append(away.last().payload["agent_schema_version"]["external_identifier"])
        assert found[0] == found[1] != found[2]
        await away.client.create_agent_instance(agent_version=VERSION, external_schema_version_id="mine-1")
        assert away.last().payload["agent_schema_version"]["external_identifier"] == "mine-1"


async def test_the_runtime_environment_is_added_unless_given() -> None:
    async with Away() as away:
        away.client._set_sdk_header_entry("prefactor-langchain@0.3.0")
        await away.instance()
        runtime = away.last().payload["agent_version"]["runtime_environment"]
        assert runtime["agent_sdk"] == ["prefactor-langchain@0.3.0"]
        given = {**VERSION, "runtime_environment": {"os": "plan9"}}
        await away.client.create_agent_instance(agent_version=given)
        assert away.last().payload["agent_version"]["runtime_environment"] == {"os": "plan9"}


async def test_ids_of_an_account_share_its_partition() -> None:
    async with Away() as away:
        agent_id = PfidFactory().new()
        instance = await away.client.create_agent_instance(agent_id, VERSION)
        span_id = await instance.create_span("t:outer")
        # Characters 10 to 15 hold nothing but partition bits.
        assert agent_id[10:16] == instance.id[10:16] == span_id[10:16]


async def test_instances_are_known_until_they_are_finished() -> None:
    async with Away() as away:
        manager = away.client.instance_manager
        handle = await away.instance()
        assert manager.get(handle.id).status == "pending"
        await handle.start(datetime(2026, 1, 2, tzinfo=UTC))
        assert manager.get(handle.id).started_at == datetime(2026, 1, 2, tzinfo=UTC)
        assert away.last().payload["timestamp"] == "2026-01-02T00:00:00+00:00"
        await handle.finish()
        with pytest.raises(InstanceNotFoundError):
            manager.get(handle.id)


async def test_managers_take_keys_of_the_callers() -> None:
    async with Away() as away:
        manager = away.client.instance_manager
        await manager.start_with_idempotency_key(AN_ID, "k" * 64)
        await manager.finish_with_idempotency_key(AN_ID, "k", "cancelled")
        assert [operation.idempotency_key for operation in away.queue.puts] == ["k" * 64, "k"]
        for key in ("", "k" * 65):
            with pytest.raises(ValueError, match="idempotency_key"):
                await manager.start_with_idempotency_key(AN_ID, key)
        assert len(away.queue.puts) == 2


@pytest.mark.parametrize("status", ["", "done", "terminated", "active"])
async def test_an_instance_finishes_with_a_known_status(status: str) -> None:
    async with Away() as away:
        instance = await away.instance()
        with pytest.raises(ValueError, match="status"):
            await instance.finish(status)
        await instance.finish()
        assert away.last().payload["status"] == "complete"


# -- spans


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
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
    ],
)
async def test_bad_spans_are_refused_before_anything_is_queued(arguments: dict[str, Any], field: str) -> None:
    async with Away() as away:
        call = {"instance_id": AN_ID, "schema_name": "t:outer", **arguments}
        with pytest.raises(InvalidInputError) as caught:
            await away.client.create_span(**call)
        assert caught.value.field == field
        with pytest.raises(InvalidInputError) as caught:
            async with away.client.span(**call):
                pytest.fail("the span was opened")
        assert caught.value.field == field
        assert away.queue.accepted == 0
        assert SpanContextStack.is_empty()


async def test_a_naive_time_is_refused() -> None:
    async with Away() as away:
        instance = await away.instance()
        naive = datetime(2026, 1, 1)  # noqa: DTZ001 -- the point
        for call in (
            instance.start(naive),
            instance.finish(timestamp=naive),
            instance.create_span("t:outer", started_at=naive),
            instance.start("now"),  # type: ignore[arg-type] # what a caller may do
        ):
            with pytest.raises(InvalidInputError, match="datetime"):
                await call
        assert away.types() == ["register_agent_instance"]


async def test_start_refuses_a_bad_payload_and_can_be_repeated() -> None:
    async with Away() as away:
        instance = await away.started()
        async with instance.span("t:outer") as span:
            with pytest.raises(InvalidPayloadError) as caught:
                await span.start({"messages": [{"score": float("nan")}]})
            assert caught.value.field == "payload.messages[0].score"
            assert away.types() == []
            await span.start({"messages": []})
        assert away.types() == ["create_span", "finish_span"]


async def test_a_bad_result_never_costs_the_agent_its_answer(caplog: pytest.LogCaptureFixture) -> None:
    async with Away() as away:
        instance = await away.instance()
        for _ in range(2):
            async with instance.span("t:outer") as span:
                await span.complete({"answer": object()})
            marker = away.last().payload["result_payload"][UNSERIALISABLE_KEY]
            assert "result_payload.answer" in marker
        assert caplog.text.count("is recorded without its result_payload") == 1
        span_id = await instance.create_span("t:inner")
        await instance.finish_span(span_id, {"x": float("nan")})
        assert UNSERIALISABLE_KEY in away.last().payload["result_payload"]


async def test_a_bad_payload_of_set_payload_is_marked_when_the_span_starts_by_itself() -> None:
    async with Away() as away:
        instance = await away.instance()
        async with instance.span("t:outer") as span:
            span.set_payload({"bad": object()})
        create = away.queue.puts[-2]
        assert create.type is OperationType.CREATE_SPAN
        assert UNSERIALISABLE_KEY in create.payload["payload"]


async def test_payloads_merge_before_the_start_and_warn_after(caplog: pytest.LogCaptureFixture) -> None:
    async with Away() as away:
        instance = await away.started()
        given = {"a": 1, "b": 1}
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
        create, finish = away.queue.puts[-2:]
        assert create.payload["payload"] == {"a": 1, "b": 2, "c": 3}
        assert create.payload["status"] == "active"
        assert finish.payload["result_payload"] == {"x": 1, "y": 2}
        assert finish.payload["status"] == "complete"
        assert given == {"a": 1, "b": 1}
        assert caplog.text.count("set_payload() after the start") == 1
        assert len(away.queue.puts) == 2


async def test_later_changes_by_the_caller_do_not_reach_what_was_put() -> None:
    async with Away() as away:
        instance = await away.instance()
        payload = {"list": [1]}
        span_id = await instance.create_span("t:outer", payload=payload)
        payload["list"].append(2)
        assert away.last().payload["payload"] == {"list": [1]}
        await instance.finish_span(span_id)


async def test_cancelling_before_and_after_the_start() -> None:
    async with Away() as away:
        instance = await away.started()
        async with instance.span("t:outer") as before:
            await before.cancel()
            await before.cancel()
        async with instance.span("t:outer") as after:
            await after.start()
            await after.cancel()
        statuses = [operation.payload.get("status") for operation in away.queue.puts]
        assert statuses == ["pending", "cancelled", "active", "cancelled"]
        assert "started_at" not in away.queue.puts[0].payload


@pytest.mark.parametrize(
    ("raised", "status", "result"),
    [
        (ValueError("broken"), "failed", {"error": {"type": "ValueError", "message": "broken"}}),
        (asyncio.CancelledError(), "cancelled", None),
        (KeyboardInterrupt(), "failed", {"error": {"type": "KeyboardInterrupt", "message": ""}}),
    ],
)
async def test_an_exception_in_the_body(
    raised: BaseException, status: str, result: dict[str, Any] | None
) -> None:
    async with Away() as away:
        instance = await away.instance()
        with pytest.raises(type(raised)):
            async with instance.span("t:outer") as span:
                await span.start()
                raise raised
        assert away.last().payload["status"] == status
        assert away.last().payload.get("result_payload") == result


async def test_an_exception_that_cannot_be_shown_is_still_the_callers() -> None:
    class UnspeakableError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    async with Away() as away:
        instance = await away.instance()
        with pytest.raises(UnspeakableError):
            async with instance.span("t:outer"):
                raise UnspeakableError
        assert "no message" in away.last().payload["result_payload"]["error"]["message"]


async def test_a_span_is_entered_in_one_task_and_left_in_another() -> None:
    async with Away() as away:
        instance = await away.instance()
        scope = instance.span("t:outer")
        await scope.__aenter__()
        await asyncio.create_task(scope.__aexit__(None, None, None))
        # This task entered it, and must not take it for a parent any more.
        assert SpanContextStack.peek() is None
        assert await instance.create_span("t:inner") == away.last().span_id
        assert "parent_span_id" not in away.last().payload


async def test_a_long_lived_task_does_not_collect_spans_that_others_finish() -> None:
    async with Away() as away:
        instance = await away.instance()
        for _ in range(300):
            span_id = await instance.create_span("t:outer")
            await asyncio.create_task(instance.finish_span(span_id))
        assert SpanContextStack.depth() == 0


async def test_a_parent_comes_only_from_the_same_instance() -> None:
    async with Away() as away:
        first, second = await away.instance(), await away.instance()
        async with first.span("t:outer") as outer, second.span("t:outer") as other:
            async with first.span("t:inner") as inner:
                await inner.start()
            assert away.last().payload["span_id"] == inner.id
            create = next(op for op in away.queue.puts if op.idempotency_key == f"{inner.id}:create")
            assert create.payload["parent_span_id"] == outer.id
            with pytest.raises(InvalidIdentifierError, match="parent_span_id"):
                await first.create_span("t:inner", parent_span_id=other.id)
            elsewhere = PfidFactory().new()
            await first.create_span("t:inner", parent_span_id=elsewhere)
            assert away.last().payload["parent_span_id"] == elsewhere


async def test_ancestors_that_were_not_started_go_first(caplog: pytest.LogCaptureFixture) -> None:
    async with Away() as away:
        instance = await away.started()
        async with (
            instance.span("t:outer", payload={"level": 1}) as one,
            instance.span("t:outer", payload={"level": 2}) as two,
            instance.span("t:outer") as three,
        ):
            await three.start({"level": 3})
            creates = away.queue.puts[:]
            assert [operation.span_id for operation in creates] == [one.id, two.id, three.id]
            assert [operation.payload["payload"] for operation in creates] == [
                {"level": 1},
                {"level": 2},
                {"level": 3},
            ]
            await two.start({"too": "late"})
            await one.start()
        assert len(away.queue.puts) == 6
        assert caplog.text.count("came too late") == 1


async def test_finishing_what_is_not_open() -> None:
    async with Away() as away:
        instance = await away.instance()
        span_id = await instance.create_span("t:outer")
        await instance.finish_span(span_id)
        for unknown in (span_id, PfidFactory().new()):
            with pytest.raises(SpanNotFoundError, match=unknown):
                await instance.finish_span(unknown)
            with pytest.raises(KeyError):
                await away.client.finish_span(unknown)
        with pytest.raises(InvalidIdentifierError, match="span_id"):
            await instance.finish_span("span-1")


async def test_a_context_whose_span_was_finished_by_id_has_nothing_to_finish() -> None:
    async with Away() as away:
        instance = await away.started()
        async with instance.span("t:outer") as span:
            await instance.finish_span(span.id)
            await span.start({"late": 1})
            span.set_payload({"late": 2})
        assert away.types() == ["create_span", "finish_span"]


async def test_an_instance_that_nobody_started_starts_with_its_first_span() -> None:
    async with Away() as away:
        instance = await away.instance()
        async with instance.span("t:outer"), instance.span("t:inner"):
            pass
        await instance.start()
        await instance.finish()
        assert away.types() == [
            "register_agent_instance",
            "start_agent_instance",
            "create_span",
            "create_span",
            "finish_span",
            "finish_span",
            "finish_agent_instance",
        ]


async def test_nothing_is_kept_of_finished_spans() -> None:
    async with Away() as away:
        session = away.client._session
        assert session is not None
        instance = await away.instance()
        for _ in range(50):
            async with instance.span("t:outer"):
                await instance.finish_span(await instance.create_span("t:inner"))
        assert session.spans.open_spans == 0
        assert not session.spans._of_instance
        left_open = await instance.create_span("t:inner")
        await instance.finish()
        await instance.finish_span(left_open)
        assert session.spans.open_spans == 0
        assert not session.spans._orphans


async def test_spans_of_an_instance_that_another_process_owns() -> None:
    async with Away() as away:
        handle = AgentInstanceHandle(AN_ID, away.client)
        async with handle.span("t:outer"):
            pass
        await handle.finish()
        assert away.types() == ["create_span", "finish_span", "finish_agent_instance"]


# -- headers and queues of one's own


async def test_the_sdk_header_is_read_late() -> None:
    client = PrefactorCoreClient(PrefactorCoreConfig(), sdk_header_entry="one@1")
    assert client._sdk_header().startswith("one@1 prefactor-core@")
    client._set_sdk_header_entry("two@2")
    assert client._sdk_header().startswith("two@2 prefactor-core@")


class FiveMethods(Queue[Operation]):
    """The published interface and no more, on top of ``asyncio.Queue``, with puts that suspend."""

    def __init__(self) -> None:
        self._items: asyncio.Queue[Operation | None] = asyncio.Queue()
        self._closed = False
        self.puts: list[Operation] = []

    async def put(self, item: Operation) -> None:
        if self._closed:
            raise QueueClosedError("closed")
        await asyncio.sleep(0)
        self.puts.append(item)
        await self._items.put(item)

    async def get(self) -> Operation:
        if self._closed and self._items.empty():
            raise QueueClosedError("closed")
        item = await self._items.get()
        if item is None:
            raise QueueClosedError("closed")
        return item

    def size(self) -> int:
        return self._items.qsize()

    async def close(self, num_waiters: int = 1) -> None:
        if not self._closed:
            self._closed = True
            for _ in range(num_waiters):
                self._items.put_nowait(None)

    @property
    def closed(self) -> bool:
        return self._closed


async def test_a_queue_with_five_methods_carries_a_run(tmp_path: Path) -> None:
    async with running_emulator(tmp_path) as emulator:
        queue = FiveMethods()
        client = PrefactorCoreClient(client_for(emulator.url)._config, queue)
        await client.initialize()

        async def run() -> None:
            async with client.create_agent_instance(agent_version=VERSION) as instance:
                await instance.start()
                async with instance.span("t:outer"):
                    await asyncio.gather(*(one(instance) for _ in range(10)))

        async def one(instance: AgentInstanceHandle) -> None:
            async with instance.span("t:inner"):
                await instance.finish_span(await instance.create_span("t:by-hand"))

        await asyncio.gather(*(run() for _ in range(5)))
        summary = await client.close(timeout=30)
        assert summary.complete, summary
        assert summary.put == 5 * (3 + 2 * 21)
        assert compare(queue.puts, await emulator.effects()) == Comparison(0, 0, 0)


async def test_the_emulator_is_killed_without_notice_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    emulator = Emulator(tmp_path / "emulator.db")
    await emulator.start()
    try:
        queue = RecordingQueue()
        client = client_for(emulator.url, queue)
        await client.initialize()
        for _ in range(5):
            async with client.create_agent_instance(agent_version=VERSION) as instance:
                await instance.start()
                for _ in range(20):
                    async with instance.span("t:outer"):
                        await asyncio.sleep(0.001)
                await emulator.kill()
                await emulator.start()
        assert (await client.close(timeout=60)).complete
        assert compare(queue.puts, await emulator.effects()) == Comparison(0, 0, 0)
    finally:
        await emulator.kill()


@dataclass
class Question:
    text: str
    asked: datetime


class Answer(BaseModel):
    text: str
    score: float


async def test_dataclasses_and_models_are_welcome_wherever_a_dict_is() -> None:
    asked = datetime(2026, 1, 1, tzinfo=UTC)
    question: Any = Question("why?", asked)
    answer: Any = Answer(text="because", score=0.5)
    async with Away() as away:
        instance = await away.started()
        async with instance.span("t:outer", payload=question) as span:
            span.set_payload(answer)
            span.set_result(answer)
            await span.complete(question)
        create, finish = away.queue.puts
        assert create.payload["payload"] == {"text": "because", "asked": "2026-01-01T00:00:00Z", "score": 0.5}
        assert finish.payload["result_payload"] == {
            "text": "why?",
            "asked": "2026-01-01T00:00:00Z",
            "score": 0.5,
        }
        async with instance.span("t:outer") as span:
            await span.start(question)
        assert away.queue.puts[-2].payload["payload"]["text"] == "why?"


@pytest.mark.parametrize("result", ["words", ["a", "list"], 5, object()])
async def test_a_result_that_is_no_object_is_marked(result: Any) -> None:
    async with Away() as away:
        instance = await away.started()
        async with instance.span("t:outer") as span:
            span.set_result({"kept": 1})
            await span.complete(result)
        sent = away.last().payload["result_payload"]
        assert sent["kept"] == 1
        assert UNSERIALISABLE_KEY in sent
