"""A LangChain agent, traced by the published ``prefactor-langchain`` on this SDK.

The chat model is scripted, so that the example runs offline; any chat model that can call tools will do.

Run it beside an emulator::

    pip install 'prefactor-core[integrations]' prefactor-langchain langchain
    prefactor-emulator &
    python examples/langchain_agent.py
"""

import asyncio
import os
from collections.abc import Sequence
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolCall
from langchain_core.tools import tool
from prefactor_langchain import PrefactorMiddleware


class ScriptedModel(GenericFakeChatModel):
    """A chat model that says what it was told to say, in this order."""

    def bind_tools(self, tools: Sequence[Any], **options: Any) -> "ScriptedModel":
        """Take the agent's tools; the script knows already which of them it calls."""
        return self


@tool
def price_of(article: str) -> float:
    """Look up the price of an article."""
    return {"tea": 3.5, "cake": 4.25}[article]


@tool
def total(prices: list[float]) -> float:
    """Add prices up."""
    return sum(prices)


SCRIPT = [
    AIMessage(
        content="I look both prices up.",
        tool_calls=[
            ToolCall(name="price_of", args={"article": "tea"}, id="call-1"),
            ToolCall(name="price_of", args={"article": "cake"}, id="call-2"),
        ],
    ),
    AIMessage(content="", tool_calls=[ToolCall(name="total", args={"prices": [3.5, 4.25]}, id="call-3")]),
    AIMessage(content="Tea and cake are 7.75 together."),
]


async def main() -> None:
    """Let the agent answer one question."""
    # The middleware makes a client of its own, and an instance with the first call of the agent.
    middleware = PrefactorMiddleware.from_config(
        api_url=os.environ.get("PREFACTOR_API_URL", "http://127.0.0.1:8700"),
        api_token=os.environ.get("PREFACTOR_API_TOKEN", "dev"),
        agent_name="Shop assistant",
        # A tool with a schema of its own gets a span type of its own: langchain:tool:total.
        tool_schemas={
            "total": {
                "span_type": "total",
                "input_schema": {"type": "object", "properties": {"prices": {"type": "array"}}},
            }
        },
    )
    agent = create_agent(ScriptedModel(messages=iter(SCRIPT)), [price_of, total], middleware=[middleware])
    try:
        question = HumanMessage("What are tea and cake together?")
        state = await agent.ainvoke({"messages": [question]})
        print(state["messages"][-1].content)
    finally:
        await middleware.close()  # finishes the instance and delivers what is still queued


if __name__ == "__main__":
    asyncio.run(main())
