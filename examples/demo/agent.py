"""The agent: answers a question from files, and records each of its steps as a span.

Its "model" is a few lines of Python, so that the demo runs anywhere and answers the same each time. What it
records is what an agent with a real model would.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from library import Sentence, search, search_terms, sentences_in
from prefactor_core import AgentInstanceHandle, SchemaRegistry, SpanContext

VERSION: Final = {"name": "Document reader", "external_identifier": "document-reader-2"}
_SUMMARIES: Final = {
    "agent:run": "{{question}}",
    "llm:plan": "{{prompt}}",
    "tool:read": "{{file}}",
    "tool:search": "in {{sentences}} sentences",
    "llm:answer": "{{prompt}}",
}
_MODEL: Final = "scripted-1"
_READS_AT_ONCE: Final = 8


def schema_registry() -> SchemaRegistry:
    """Describe the agent's spans to the API: what goes in, what comes out, how a page sums them up."""
    registry = SchemaRegistry()
    for name, template in _SUMMARIES.items():
        registry.register_type(name, {"type": "object"}, {"type": "object"}, title=name, template=template)
    return registry


class MeteredInstance:
    """An agent instance that adds to ``costs`` the seconds for which each span held its agent up."""

    def __init__(self, instance: AgentInstanceHandle, costs: list[float]) -> None:
        self._instance = instance
        self._costs = costs

    @asynccontextmanager
    async def span(self, name: str, payload: dict[str, Any]) -> AsyncIterator[SpanContext]:
        """Open, start and end a span."""
        began = perf_counter()
        try:
            async with self._instance.span(name, payload=payload) as span:
                await span.start()
                entered = perf_counter()
                try:
                    yield span
                finally:
                    began += perf_counter() - entered  # the agent's own time
        finally:
            self._costs.append(perf_counter() - began)


async def answer_question(instance: MeteredInstance, question: str, files: Sequence[Path]) -> list[Sentence]:
    """Return the sentences that answer a question best; none where nothing fits."""
    # Spans that are opened inside this block, in tasks too, become its children by themselves.
    async with instance.span("agent:run", {"question": question, "files": len(files)}) as run:
        prompt = f"What to search for? {question}"
        async with instance.span("llm:plan", {"model": _MODEL, "prompt": prompt}) as span:
            terms = search_terms(question)
            span.set_result({"terms": terms, "tokens": len(prompt.split()) + len(terms)})
        sentences = await _read_all(instance, files)
        async with instance.span("tool:search", {"terms": terms, "sentences": len(sentences)}) as span:
            candidates = search(sentences, terms, limit=8)
            span.set_result({"candidates": [each.source for each in candidates]})
        prompt = "\n".join([question, *(each.text for each in candidates)])
        async with instance.span("llm:answer", {"model": _MODEL, "prompt": prompt}) as span:
            answer = candidates[:2]
            response = " ".join(each.text for each in answer)
            span.set_result({"response": response, "tokens": len(prompt.split()) + len(response.split())})
        run.set_result({"answer": response, "sources": [each.source for each in answer]})
    return answer


async def _read_all(instance: MeteredInstance, files: Sequence[Path]) -> list[Sentence]:
    at_once = asyncio.Semaphore(_READS_AT_ONCE)

    async def read(path: Path) -> list[Sentence]:
        try:
            async with at_once, instance.span("tool:read", {"file": str(path)}) as span:
                text = await asyncio.to_thread(path.read_text, "utf-8")
                sentences = sentences_in(path, text)
                span.set_result({"characters": len(text), "sentences": len(sentences)})
                return sentences
        except (OSError, UnicodeDecodeError):
            return []  # its span has failed and tells why; there are other files

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(read(path)) for path in files]
    return [sentence for task in tasks for sentence in task.result()]
