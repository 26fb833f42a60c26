"""Agents on the published Python SDK, written as its users do: ``core_sdk.py URL SCENARIO``.

The last line of the output is what they saw, as JSON.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib.metadata import version
from typing import Any

from prefactor_http import HttpClientConfig, PrefactorHttpClient, PrefactorHttpError

from prefactor_core import (
    AgentInstanceHandle,
    PrefactorCoreClient,
    PrefactorCoreConfig,
    PrefactorCoreError,
    QueueConfig,
    SchemaRegistry,
)

TOKEN = "any-token"
VERSION = {"name": "Bookkeeper", "external_identifier": "books-1.0"}


def configuration(url: str) -> PrefactorCoreConfig:
    schemas = SchemaRegistry()
    schemas.register("agent:task", {"type": "object"})
    schemas.register_result("agent:task", {"type": "object"})
    schemas.register_type(
        name="agent:tool",
        params_schema={"type": "object"},
        result_schema={"type": "object"},
        title="A tool",
        description="What the agent has used",
        template="{{ name }}: {{ found }}",
    )
    schemas.register_quality_schema("accuracy", {"type": "object"}, title="Accuracy")
    return PrefactorCoreConfig(
        http_config=HttpClientConfig(url, TOKEN, max_retries=9, initial_retry_delay=0.01),
        queue_config=QueueConfig(max_retries=9, retry_delay_base=0.01),
        schema_registry=schemas,
    )


async def begun(client: PrefactorCoreClient, **options: Any) -> AgentInstanceHandle:
    instance = await client.create_agent_instance(agent_version=VERSION, **options)
    await instance.start()
    return instance


async def use_a_tool(instance: AgentInstanceHandle, number: int) -> None:
    async with instance.span("agent:tool", payload={"name": f"bank {number}"}) as tool:
        await asyncio.sleep(0.01)
        tool.set_result({"found": number})


async def work(client: PrefactorCoreClient, _: str) -> dict[str, Any]:
    """Spans below spans, one after the other and at once."""
    instance = await begun(client, agent_id="bookkeeper", purpose="eval", external_identifier="march")
    async with instance.span("agent:task") as task:
        await task.start({"task": "close the books"})
        async with instance.span("agent:task") as look:
            await look.start({"task": "look"})
            async with instance.span("agent:tool", payload={"name": "ledger"}) as tool:
                await tool.complete({"found": 2})
            look.set_result({"open": 2})
        await asyncio.gather(*(use_a_tool(instance, number) for number in range(5)))
        task.set_result({"closed": True})
    await instance.finish()
    return {"instance": instance.id, "task": task.id, "look": look.id, "tool": tool.id}


async def fail(client: PrefactorCoreClient, _: str) -> dict[str, Any]:
    """Every way in which a span ends, and an instance that failed."""
    instance = await begun(client)
    async with instance.span("agent:task", payload={"ends": "failed"}) as span:
        await span.start({"ends": "failed"})
        await span.fail({"error": "no paper"})
    async with instance.span("agent:task") as span:
        await span.start({"ends": "cancelled"})
        await span.cancel()
    async with instance.span("agent:task", payload={"ends": "before it began"}) as span:
        await span.cancel()
    with suppress(ZeroDivisionError):
        async with instance.span("agent:task", payload={"ends": "with an exception"}):
            1 / 0  # noqa: B018 -- it is to fail
    span_id = await instance.create_span("agent:task", payload={"ends": "by hand"})
    await instance.finish_span(span_id, {"written": True})
    await instance.finish("failed")
    return {"instance": instance.id}


async def judge(client: PrefactorCoreClient, url: str) -> dict[str, Any]:
    """A quality that is recorded, and one that is removed again."""
    instance = await begun(client, instance_id="01jz0000000000000000000000000001")
    await instance.record_quality("accuracy", {"right": 7})
    await instance.record_quality("tone", {"kind": True})
    async with PrefactorHttpClient(HttpClientConfig(url, TOKEN)) as http:
        while len((await http.agent_instances.get(instance.id)).quality_payloads or ()) < 2:
            await asyncio.sleep(0.05)
    await instance.record_quality("tone", None)
    await instance.finish("cancelled")
    return {"instance": instance.id}


async def be_stopped(client: PrefactorCoreClient, url: str) -> dict[str, Any]:
    """The service terminates the instance in the middle."""
    instance = await begun(client)
    span_id = await instance.create_span("agent:task", payload={"task": "first"})
    async with PrefactorHttpClient(HttpClientConfig(url, TOKEN)) as http:
        while (await http.agent_instances.get(instance.id)).status != "active":
            await asyncio.sleep(0.05)
        path = f"/api/v1/agent_instance/{instance.id}/terminate"
        await http.request("POST", path, json_data={"reason": "too costly"})
    await instance.create_span("agent:task", payload={"task": "second"})
    with suppress(PrefactorCoreError):
        await instance.finish_span(span_id, {"done": True})
        await instance.finish()
    return {"instance": instance.id}


SCENARIOS: dict[str, Callable[[PrefactorCoreClient, str], Awaitable[dict[str, Any]]]] = {
    "work": work,
    "fail": fail,
    "judge": judge,
    "be stopped": be_stopped,
}


async def main(url: str, scenario: str) -> dict[str, Any]:
    """Run a scenario, and return what it saw."""
    seen: dict[str, Any] = {"version": version("prefactor-core")}
    client = PrefactorCoreClient(configuration(url))
    try:
        await client.initialize()
    except PrefactorHttpError as error:
        return seen | {"refusal": f"{type(error).__name__} {error}"}
    try:
        seen |= await SCENARIOS[scenario](client, url)
    finally:
        try:
            await client.close()
        except PrefactorCoreError as error:
            seen["closing"] = type(error).__name__
    return seen


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(*sys.argv[1:]))) + "\n")
