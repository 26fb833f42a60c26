"""A LangChain agent under the published integration, its model scripted: ``langchain_agent.py URL MOOD``.

In the mood `well` all goes well; in `broken` a tool fails; in `stopped` the service terminates the instance.
The last line of the output is what came of it, as JSON.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Self

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolCall
from langchain_core.tools import tool
from prefactor_http import HttpClientConfig, PrefactorHttpClient
from prefactor_langchain import PrefactorMiddleware, register_langchain_schemas

from prefactor_core import (
    PrefactorCoreClient,
    PrefactorCoreConfig,
    PrefactorCoreError,
    QueueConfig,
    SchemaRegistry,
)

TOKEN = "any-token"
TOOLS = {"total": {"span_type": "total", "input_schema": {"type": "object"}}}


class Stopping(AgentMiddleware[Any, Any, Any]):
    """Has the instance terminated between the first tools and the second call of the model.

    Before and after that it waits until the ends of all spans but the agent's are delivered, so that the
    signal comes with the end of the second call, and before the tools that follow.
    """

    def __init__(self, http: PrefactorHttpClient) -> None:
        super().__init__()
        self._http = http
        self._calls = 0

    async def abefore_model(self, state: Any, runtime: Any) -> None:  # noqa: ARG002 -- the hook's signature
        """Terminate the instance before the second call."""
        self._calls += 1
        instance_id = await self._delivered()
        if self._calls == 2:
            path = f"/api/v1/agent_instance/{instance_id}/terminate"
            await self._http.request("POST", path, json_data={"reason": "too costly"})

    async def aafter_model(self, state: Any, runtime: Any) -> None:  # noqa: ARG002 -- the hook's signature
        """Wait for the end of the call."""
        await self._delivered()

    async def _delivered(self) -> str:
        while True:
            reply = await self._http.request("GET", "/api/v1/agent_instance")
            for instance in reply["summaries"]:
                if instance["status"] != "pending" and instance["span_counts"]["active"] <= 1:
                    for _ in range(50):  # turns of the loop, in which the SDK reads its last reply
                        await asyncio.sleep(0.005)
                    return str(instance["id"])
            await asyncio.sleep(0.05)


class ScriptedModel(GenericFakeChatModel):
    """Says what it was told to say, in this order."""

    def bind_tools(self, tools: Sequence[Any], **options: Any) -> Self:  # noqa: ARG002 -- the script knows them
        """Bind nothing."""
        return self


@tool
async def price_of(article: str) -> float:
    """Look up the price of an article."""
    return {"tea": 3.5, "cake": 4.25}[article]


@tool
def total(prices: list[float]) -> float:
    """Add prices up."""
    return sum(prices)


def call(name: str, number: int, **arguments: Any) -> ToolCall:
    return ToolCall(name=name, args=arguments, id=f"call-{number}")


def script(*, broken: bool) -> list[AIMessage]:
    return [
        AIMessage(
            "",
            tool_calls=[
                call("price_of", 1, article="tea"),
                call("price_of", 2, article="gold" if broken else "cake"),
            ],
        ),
        AIMessage("", tool_calls=[call("total", 3, prices=[3.5, 4.25])]),
        AIMessage("Tea and cake are 7.75 together."),
    ]


def configuration(url: str) -> PrefactorCoreConfig:
    schemas = SchemaRegistry()
    register_langchain_schemas(schemas, tool_schemas=TOOLS)
    return PrefactorCoreConfig(
        http_config=HttpClientConfig(url, TOKEN, max_retries=3, initial_retry_delay=0.01),
        queue_config=QueueConfig(retry_delay_base=0.01),
        schema_registry=schemas,
    )


async def main(url: str, mood: str) -> dict[str, Any]:
    """Ask the agent, and return its answer or what was raised."""
    seen: dict[str, Any] = {name: version(name) for name in ("prefactor-core", "prefactor-langchain")}
    client = PrefactorCoreClient(configuration(url))
    await client.initialize()
    middleware = PrefactorMiddleware(client=client, agent_name="Shop", tool_schemas=TOOLS)
    model = ScriptedModel(messages=iter(script(broken=mood == "broken")))
    http = PrefactorHttpClient(HttpClientConfig(url, TOKEN))
    stopping = [Stopping(http)] if mood == "stopped" else []
    agent = create_agent(model, [price_of, total], middleware=[middleware, *stopping])
    try:
        state = await agent.ainvoke({"messages": [HumanMessage("What are tea and cake together?")]})
        seen["answer"] = state["messages"][-1].content
    except (KeyError, PrefactorCoreError) as error:
        seen["raised"] = f"{type(error).__name__} {error}"
    for closing in (middleware.close, client.close, http.close):
        try:
            await closing()
        except PrefactorCoreError as error:
            seen["closing"] = type(error).__name__
    return seen


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(*sys.argv[1:]))) + "\n")
