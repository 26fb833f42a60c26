"""A LangChain agent whose model is scripted: three calls of the model, three of tools, two at once."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Self

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolCall
from langchain_core.tools import BaseTool, tool
from prefactor_langchain import register_langchain_schemas

from prefactor_core import HttpClientConfig, PrefactorCoreConfig, QueueConfig, SchemaRegistry

ANSWER = "Tea and cake are 7.75 together."
TOOL_SCHEMAS = {"total": {"span_type": "total", "input_schema": {"type": "object"}}}


class ScriptedModel(GenericFakeChatModel):
    """Says what it was told to say, in this order; an exception in the script is raised."""

    def bind_tools(self, tools: Sequence[Any], **options: Any) -> Self:  # noqa: ARG002 -- the script knows them
        return self


@tool
async def price_of(article: str) -> float:
    """Look up the price of an article."""
    await asyncio.sleep(0.01 if article == "tea" else 0.005)  # the second ends first
    return {"tea": 3.5, "cake": 4.25}[article]


@tool
def total(prices: list[float]) -> float:
    """Add prices up."""
    return sum(prices)


@tool("price_of")
def price_of_sync(article: str) -> float:
    """Look up the price of an article."""
    return {"tea": 3.5, "cake": 4.25}[article]


@tool("total")
async def total_async(prices: list[float]) -> float:
    """Add prices up."""
    return sum(prices)


def call(name: str, number: int = 1, **arguments: Any) -> ToolCall:
    return ToolCall(name=name, args=arguments, id=f"call-{number}")


def script() -> list[AIMessage]:
    return [
        AIMessage("", tool_calls=[call("price_of", 1, article="tea"), call("price_of", 2, article="cake")]),
        AIMessage("", tool_calls=[call("total", 3, prices=[3.5, 4.25])]),
        AIMessage(ANSWER),
    ]


def agent_with(
    *middleware: AgentMiddleware[Any, Any, Any],
    says: Sequence[AIMessage] | None = None,
    tools: Sequence[BaseTool] = (price_of, total),
) -> Any:
    """Return an agent that follows a script, by default the one above."""
    model = ScriptedModel(messages=iter(script() if says is None else says))
    return create_agent(model, list(tools), middleware=list(middleware))


def question() -> dict[str, list[HumanMessage]]:
    return {"messages": [HumanMessage("What are tea and cake together?")]}


def configuration(url: str, tool_schemas: Mapping[str, Any] | None = None) -> PrefactorCoreConfig:
    """Return a configuration whose backoff suits a test, with schemas for all spans."""
    schemas = SchemaRegistry()
    for name in ("workflow", "afterwards", "work"):
        schemas.register(name, {"type": "object"})
    register_langchain_schemas(schemas, tool_schemas=tool_schemas)
    return PrefactorCoreConfig(
        http_config=HttpClientConfig(api_url=url, api_token="test", max_retry_delay=1),
        queue_config=QueueConfig(retry_delay_base=0.05),
        schema_registry=schemas,
    )
