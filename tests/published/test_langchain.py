"""The published prefactor-langchain, unmodified, on this SDK: real agents, scripted model, real emulator."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

import httpx
import prefactor_langchain
import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import BaseTool, tool
from prefactor_langchain import PrefactorCallbackHandler, PrefactorMiddleware, register_langchain_schemas

import prefactor_core
from prefactor_core import PrefactorCoreClient, PrefactorTelemetryFailureError, PrefactorTerminatedError
from tests.published.scripted import (
    ANSWER,
    TOOL_SCHEMAS,
    agent_with,
    call,
    configuration,
    price_of,
    price_of_sync,
    question,
    total,
    total_async,
)
from tests.published.story import (
    CREATE_SPAN,
    FINISH,
    FINISH_SPAN,
    check_complete,
    check_order,
    finished_instance,
    outline,
    the_instance,
)
from tests.support.emulator import Emulator, running_emulator
from tests.support.recording import RecordingQueue

ROOT = Path(__file__).parents[2]
SPANS = [
    "langchain:agent complete",
    "langchain:llm complete",
    "langchain:llm complete",
    "langchain:llm complete",
    "langchain:tool complete",
    "langchain:tool complete",
    "langchain:tool:total complete",
]
AGENT_VERSION = {"name": "Shop", "external_identifier": "shop-1"}
FAULTS = ("lost-reply:rate=0.2", "error:rate=0.1")

Traced = Callable[[str, RecordingQueue], AbstractAsyncContextManager[PrefactorMiddleware]]


@asynccontextmanager
async def by_client(url: str, queue: RecordingQueue) -> AsyncIterator[PrefactorMiddleware]:
    """The client is the caller's, the instance the middleware's."""
    async with PrefactorCoreClient(configuration(url), queue) as client:
        middleware = PrefactorMiddleware(client, agent_name="Shop", tool_schemas=TOOL_SCHEMAS)
        try:
            yield middleware
        finally:
            await middleware.close()


@asynccontextmanager
async def by_instance(url: str, queue: RecordingQueue) -> AsyncIterator[PrefactorMiddleware]:
    """Client and instance are the caller's."""
    async with (
        PrefactorCoreClient(configuration(url, TOOL_SCHEMAS), queue) as client,
        client.create_agent_instance(agent_version=AGENT_VERSION) as instance,
    ):
        await instance.start()
        middleware = PrefactorMiddleware(instance=instance, tool_schemas=TOOL_SCHEMAS)
        yield middleware
        await middleware.close()


@asynccontextmanager
async def by_factory(url: str, queue: RecordingQueue) -> AsyncIterator[PrefactorMiddleware]:
    """Everything is the middleware's, made from the published configuration."""
    middleware = PrefactorMiddleware.from_config(url, "test", agent_name="Shop", tool_schemas=TOOL_SCHEMAS)
    middleware._client._queue = queue
    yield middleware
    await middleware.close()


WAYS = pytest.mark.parametrize("traced", [by_client, by_instance, by_factory], ids=lambda way: way.__name__)


def named(instance: dict[str, Any], schema: str) -> dict[str, Any]:
    (span,) = [span for span in instance["spans"] if span["schema_name"] == schema]
    found: dict[str, Any] = span
    return found


async def terminate(emulator: Emulator, instance_id: str, **body: str) -> None:
    async with httpx.AsyncClient(base_url=emulator.url, trust_env=False) as http:
        reply = await http.post(f"/emulator/instances/{instance_id}/terminate", json=body)
    reply.raise_for_status()


def test_both_packages_are_the_published_ones_and_the_sdk_is_this_one() -> None:
    assert prefactor_core.__file__ == str(ROOT / "prefactor_core" / "__init__.py")
    assert version("prefactor-core") == prefactor_core.__version__
    assert version("prefactor-langchain") == prefactor_langchain.__version__
    assert distribution("prefactor-langchain").read_text("direct_url.json") is None, "from the index"
    assert distribution("prefactor-http").read_text("direct_url.json") is None, "from the index"


@WAYS
async def test_every_effect_happens_once_and_in_order(
    traced: Traced, emulator: Emulator, queue: RecordingQueue
) -> None:
    async with traced(emulator.url, queue) as middleware:
        state = await agent_with(middleware).ainvoke(question())
        assert state["messages"][-1].content == ANSWER
    instance = await finished_instance(emulator, queue)
    effects = await emulator.effects()
    assert Counter(effect["type"] for effect in effects)[CREATE_SPAN] == 7
    assert instance["status"] == "complete"
    assert outline(instance["spans"]) == SPANS
    assert named(instance, "langchain:tool:total")["payload"]["inputs"] == {"prices": [3.5, 4.25]}
    assert named(instance, "langchain:tool:total")["result_payload"] == {"outputs": {"output": "7.75"}}
    assert ANSWER in named(instance, "langchain:agent")["result_payload"]["outputs"]["messages"][-1]
    schemas = {schema["name"] for schema in instance["agent_schema_version"]["span_type_schemas"]}
    assert schemas >= {"langchain:agent", "langchain:llm", "langchain:tool", "langchain:tool:total"}
    # The agent's span encloses everything: it is the first to begin and the last to end.
    spans = [effect for effect in effects if effect["span_id"] is not None]
    agent = named(instance, "langchain:agent")["id"]
    assert (spans[0]["type"], spans[0]["span_id"]) == (CREATE_SPAN, agent)
    assert (spans[-1]["type"], spans[-1]["span_id"]) == (FINISH_SPAN, agent)


@pytest.mark.parametrize("bulk", ["bulk", "no-bulk"])
@pytest.mark.parametrize("seed", ["1", "2"])
async def test_faults_change_no_effect(seed: str, bulk: str, queue: RecordingQueue, tmp_path: Path) -> None:
    faults = FAULTS if bulk == "bulk" else (*FAULTS, bulk)
    options = [word for fault in faults for word in ("--fault", fault)]
    async with running_emulator(tmp_path, *options, "--seed", seed) as emulator:
        async with by_client(emulator.url, queue) as middleware:
            await agent_with(middleware).ainvoke(question())
        check_complete(emulator, queue)
        assert outline((await the_instance(emulator))["spans"]) == SPANS


@WAYS
async def test_every_request_names_both_packages(
    traced: Traced, emulator: Emulator, sent: list[tuple[str, str | None]]
) -> None:
    both = f"prefactor-langchain@{version('prefactor-langchain')} prefactor-core@{version('prefactor-core')}"
    async with traced(emulator.url, RecordingQueue()) as middleware:
        await agent_with(middleware).ainvoke(question())
    runtime = (await the_instance(emulator))["agent_version"]["runtime_environment"]
    writes = [header for path, header in sent if path != "/api/v1/ping"]
    assert writes
    if traced is by_instance:
        # The middleware came after the instance: what was sent before it could not name it.
        assert writes[-1] == both
        assert set(writes) <= {both, both.split()[1]}
        return
    assert {header for _, header in sent} == {both}
    assert runtime["agent_sdk"] == [both.split(maxsplit=1)[0]]
    assert runtime["prefactor_sdk"] == [both.split()[1]]


async def test_a_middleware_that_comes_after_its_instance_says_so(
    emulator: Emulator, queue: RecordingQueue, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "prefactor_core"):
        async with by_instance(emulator.url, queue):
            pass
    assert "PrefactorMiddleware.create_client(config)" in caplog.text


async def test_spans_around_the_agent_enclose_it(emulator: Emulator, queue: RecordingQueue) -> None:
    async with by_client(emulator.url, queue) as middleware:
        instance = await middleware.ensure_initialized()
        async with instance.span("workflow", payload={"step": 1}):
            await agent_with(middleware).ainvoke(question())
        async with instance.span("afterwards"):
            pass
    found = await finished_instance(emulator, queue)
    # LangGraph runs each node in a context of its own: what one node opens, the next does not see.
    inside = [f"  {line}" for line in SPANS]
    assert outline(found["spans"]) == ["afterwards complete", "workflow complete", *inside]


async def test_a_synchronous_agent_in_a_thread(emulator: Emulator, queue: RecordingQueue) -> None:
    async with by_client(emulator.url, queue) as middleware:
        await middleware.ensure_initialized()
        agent = agent_with(middleware, tools=[price_of_sync, total])
        state = await asyncio.to_thread(agent.invoke, question())
        assert state["messages"][-1].content == ANSWER
    found = await finished_instance(emulator, queue)
    # By hand, the middleware does name the agent's span as the parent.
    assert outline(found["spans"]) == [SPANS[0], *(f"  {line}" for line in SPANS[1:])]


async def test_agents_side_by_side_keep_apart(emulator: Emulator, queue: RecordingQueue) -> None:
    async with PrefactorCoreClient(configuration(emulator.url), queue) as client:

        async def one(number: int) -> None:
            middleware = PrefactorMiddleware(client, agent_name=f"Shop {number}")
            async with asyncio.timeout(180):
                await agent_with(middleware).ainvoke(question())
            await middleware.close()

        await asyncio.gather(*(one(number) for number in range(10)))
    check_complete(emulator, queue)
    effects = await emulator.effects()
    instances = [await emulator.instance(each) for each in {effect["instance_id"] for effect in effects}]
    assert len(instances) == 10
    for instance in instances:
        check_order(effects, instance)
        assert [line.replace(":total", "") for line in SPANS] == outline(instance["spans"])


@tool
def broken() -> str:
    """Fail."""
    raise LookupError("no such article")


async def test_a_failing_tool_is_recorded_and_its_exception_reaches_the_caller(
    emulator: Emulator, queue: RecordingQueue
) -> None:
    async with by_client(emulator.url, queue) as middleware:
        agent = agent_with(middleware, says=[AIMessage("", tool_calls=[call("broken")])], tools=[broken])
        with pytest.raises(LookupError, match="no such article"):
            await agent.ainvoke(question())
    check_complete(emulator, queue)
    found = await the_instance(emulator)
    # LangChain leaves out what comes after the agent, so its span stays open; the instance is over anyway.
    assert outline(found["spans"]) == [
        "langchain:agent active",
        "langchain:llm complete",
        "langchain:tool failed",
    ]
    error = named(found, "langchain:tool")["result_payload"]["error"]
    assert (error["error_type"], error["message"]) == ("LookupError", "no such article")
    assert (await emulator.effects())[-1]["type"] == FINISH


async def test_an_agent_whose_instance_is_terminated_stops_with_the_reason(
    emulator: Emulator, queue: RecordingQueue
) -> None:
    async with by_client(emulator.url, queue) as middleware:
        instance = await middleware.ensure_initialized()
        event = middleware._client._termination_monitor.get_termination_event()

        @tool
        async def be_terminated() -> str:
            """Have this very instance terminated, and work on until the agent has heard of it."""
            assert not event.is_set()
            await terminate(emulator, instance.id, reason="over budget")
            async with asyncio.timeout(180):
                while not event.is_set():
                    async with instance.span("work"):
                        await asyncio.sleep(0.02)
            return "done"

        says = [AIMessage("", tool_calls=[call("be_terminated")]), AIMessage("never said")]
        agent = agent_with(middleware, says=says, tools=[be_terminated])
        with pytest.raises(PrefactorTerminatedError) as raised:
            await agent.ainvoke(question())
        assert raised.value.reason == "over budget"
        with pytest.raises(PrefactorTerminatedError):
            await agent_with(middleware).ainvoke(question())
    assert middleware._instance is None


async def test_a_refused_token_reaches_the_agent(tmp_path: Path) -> None:
    async with running_emulator(tmp_path, "--fault", "bad-token") as emulator:
        middleware = PrefactorMiddleware.from_config(emulator.url, "test")
        await middleware.ensure_initialized()
        with pytest.raises(PrefactorTelemetryFailureError):
            await middleware._client.flush(30)
        with pytest.raises(PrefactorTelemetryFailureError):
            await agent_with(middleware).ainvoke(question())
        with pytest.raises(PrefactorTelemetryFailureError):
            await middleware.close()


async def traced_by_callbacks(
    emulator: Emulator, queue: RecordingQueue, tools: Sequence[BaseTool]
) -> Counter[tuple[str, str]]:
    """Run the agent with the callback handler in place of the middleware, and count its spans by parents."""
    config = configuration(emulator.url)
    assert config.schema_registry is not None
    span_types = register_langchain_schemas(config.schema_registry, tool_schemas=TOOL_SCHEMAS)
    header = prefactor_langchain.LANGCHAIN_SDK_HEADER_ENTRY
    async with (
        PrefactorCoreClient(config, queue, sdk_header_entry=header) as client,
        client.create_agent_instance(agent_version=AGENT_VERSION) as instance,
    ):
        await instance.start()
        handler = PrefactorCallbackHandler(instance, tool_span_types=span_types)
        state = await agent_with(tools=tools).ainvoke(question(), config={"callbacks": [handler]})
        assert state["messages"][-1].content == ANSWER
    found = await finished_instance(emulator, queue)
    assert {span["status"] for span in found["spans"]} == {"complete"}
    spans = {span["id"]: span for span in found["spans"]}
    return Counter(
        (span["schema_name"], spans[span["parent_span_id"]]["schema_name"])
        for span in found["spans"]
        if span["parent_span_id"] is not None
    )


def check_tree(parents: Counter[tuple[str, str]]) -> None:
    nodes = parents["langchain:node", "langchain:agent"]
    assert nodes >= 5
    assert parents == {
        ("langchain:node", "langchain:agent"): nodes,
        ("langchain:llm", "langchain:node"): 3,
        ("langchain:tool", "langchain:node"): 2,
        ("langchain:tool:total", "langchain:node"): 1,
    }


async def test_the_callback_handler_records_a_tree(emulator: Emulator, queue: RecordingQueue) -> None:
    check_tree(await traced_by_callbacks(emulator, queue, [price_of, total_async]))


async def test_the_callback_handler_records_synchronous_tools(
    emulator: Emulator, queue: RecordingQueue
) -> None:
    check_tree(await traced_by_callbacks(emulator, queue, [price_of, total]))


async def test_of_two_agents_on_one_client_only_the_terminated_one_stops(emulator: Emulator) -> None:
    async with PrefactorCoreClient(configuration(emulator.url)) as client:
        agents = [PrefactorMiddleware(client, agent_name=name) for name in ("first", "second")]
        first, second = [await middleware.ensure_initialized() for middleware in agents]
        assert await client.flush(30)
        await terminate(emulator, first.id)
        async with first.span("work"), second.span("work"):
            pass
        assert await client.flush(30)
        assert client.termination_monitor.get_termination_event(first.id).is_set()
        await agent_with(agents[1]).ainvoke(question())
        with pytest.raises(PrefactorTerminatedError):
            await agent_with(agents[0]).ainvoke(question())
