"""A LiveKit agent without LiveKit's service: a real session in text mode, and a scripted model."""

from collections.abc import Iterator
from typing import Any

from livekit.agents import Agent, AgentSession, function_tool, llm
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions

ANSWER = "Tea costs 3.50."


class ScriptedLLM(llm.LLM[Any]):
    """Says what it was told to say, in this order."""

    def __init__(self, *says: llm.ChoiceDelta) -> None:
        super().__init__()
        self._says = iter(says)

    def chat(
        self,
        *,
        chat_ctx: llm.ChatContext,
        tools: list[llm.Tool] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        **_: Any,
    ) -> llm.LLMStream:
        return _Stream(self, self._says, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class _Stream(llm.LLMStream):
    def __init__(self, model: ScriptedLLM, says: Iterator[llm.ChoiceDelta], **options: Any) -> None:
        super().__init__(model, **options)
        self._says = says

    async def _run(self) -> None:
        self._event_ch.send_nowait(llm.ChatChunk(id="chunk", delta=next(self._says)))
        usage = llm.CompletionUsage(completion_tokens=5, prompt_tokens=7, total_tokens=12)
        self._event_ch.send_nowait(llm.ChatChunk(id="chunk", usage=usage))


def says(text: str) -> llm.ChoiceDelta:
    return llm.ChoiceDelta(role="assistant", content=text)


def calls(name: str, arguments: str) -> llm.ChoiceDelta:
    called = llm.FunctionToolCall(name=name, arguments=arguments, call_id="call-1")
    return llm.ChoiceDelta(role="assistant", tool_calls=[called])


class ShopAgent(Agent):
    """An agent with a tool."""

    def __init__(self) -> None:
        super().__init__(instructions="Answer questions about prices.")

    @function_tool
    async def price_of(self, article: str) -> float:
        """Look up the price of an article."""
        return {"tea": 3.5}[article]


def session_with(*script: llm.ChoiceDelta) -> "AgentSession[None]":
    return AgentSession(llm=ScriptedLLM(*script))
