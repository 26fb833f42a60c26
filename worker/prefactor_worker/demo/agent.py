"""The agent: answers one question from files, and records each of its steps as a span."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from prefactor_core import SchemaRegistry
from prefactor_worker.demo.documents import SourceFile, UnreadableFileError, read_text
from prefactor_worker.demo.meter import MeasuredInstance
from prefactor_worker.demo.passages import Passage, split_passages
from prefactor_worker.demo.search import Excerpt, PassageIndex, Ranked, best_sentences, search_terms

AGENT_VERSION: Final = {
    "name": "Document reader",
    "external_identifier": "document-reader-1",
    "description": "Answers questions with sentences from files: plan, read, search, rank, answer.",
}

RUN: Final = "agent:run"
PLAN: Final = "agent:plan"
READ: Final = "agent:read"
SEARCH: Final = "agent:search"
RANK: Final = "agent:rank"
ANSWER: Final = "agent:answer"

_READS_AT_ONCE: Final = 8
_PASSAGES_KEPT: Final = 8
_SENTENCES_KEPT: Final = 2


class NothingReadableError(Exception):
    """None of the files could be read, so that the agent has nothing to answer from."""


async def answer_question(
    instance: MeasuredInstance, question: str, files: Sequence[SourceFile]
) -> list[Excerpt]:
    """Do the agent's work on one question.

    Args:
        instance: A started agent instance, which takes the spans.
        question: In words; those that carry meaning are searched for.
        files: What to read.

    Returns:
        The best sentences, the best first; none where nothing in the files fits.

    Raises:
        NothingReadableError: Not one of the files could be read.
    """
    async with instance.span(RUN, {"question": question, "files": len(files)}) as run:
        terms = await _plan(instance, question)
        passages = await _read_all(instance, files)
        index, candidates = await _search(instance, terms, passages)
        ranked = await _rank(instance, index, terms, candidates)
        sentences = await _answer(instance, question, index, terms, ranked)
        run.set_result({"answer": [s.text for s in sentences], "sources": [s.source for s in sentences]})
    return sentences


async def _plan(instance: MeasuredInstance, question: str) -> list[str]:
    async with instance.span(PLAN, {"question": question}) as span:
        terms = search_terms(question)
        span.set_result({"terms": terms})
    return terms


async def _read_all(instance: MeasuredInstance, files: Sequence[SourceFile]) -> list[Passage]:
    at_once = asyncio.Semaphore(_READS_AT_ONCE)

    async def read(file: SourceFile) -> list[Passage] | None:
        async with at_once:
            try:
                return await _read(instance, file)
            except UnreadableFileError:
                return None  # its span tells why; there are other files

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(read(file)) for file in files]
    found = [task.result() for task in tasks]
    if all(passages is None for passages in found):
        raise NothingReadableError(f"none of the {len(files)} files could be read")
    return [passage for passages in found if passages is not None for passage in passages]


async def _read(instance: MeasuredInstance, file: SourceFile) -> list[Passage]:
    async with instance.span(READ, {"file": file.name}) as span:
        # In a thread, so that a slow disk holds up one agent and not all. What only computes stays in the
        # loop: threads that compete for the interpreter would show up in what the telemetry's calls take.
        text = await asyncio.to_thread(read_text, file)
        passages = split_passages(file.name, text)
        span.set_result({"characters": len(text), "lines": len(text.splitlines()), "passages": len(passages)})
    return passages


async def _search(
    instance: MeasuredInstance, terms: list[str], passages: list[Passage]
) -> tuple[PassageIndex, list[int]]:
    async with instance.span(SEARCH, {"terms": terms, "passages": len(passages)}) as span:
        index = PassageIndex(passages)
        candidates = index.matching(terms)
        holding = {term: index.holders(term) for term in terms}
        span.set_result({"matching": len(candidates), "passages_by_term": holding})
    return index, candidates


async def _rank(
    instance: MeasuredInstance, index: PassageIndex, terms: list[str], candidates: list[int]
) -> list[Ranked]:
    async with instance.span(RANK, {"terms": terms, "candidates": len(candidates)}) as span:
        ranked = index.rank(terms, candidates, _PASSAGES_KEPT)
        best = [{"source": entry.passage.source, "score": round(entry.score, 3)} for entry in ranked]
        span.set_result({"best": best})
    return ranked


async def _answer(
    instance: MeasuredInstance, question: str, index: PassageIndex, terms: list[str], ranked: list[Ranked]
) -> list[Excerpt]:
    sources = [entry.passage.source for entry in ranked]
    async with instance.span(ANSWER, {"question": question, "passages": sources}) as span:
        sentences = best_sentences(index, terms, ranked, _SENTENCES_KEPT)
        shown = [{"text": s.text, "source": s.source, "score": round(s.score, 3)} for s in sentences]
        span.set_result({"sentences": shown})
    return sentences


def schema_registry() -> SchemaRegistry:
    """Describe the agent's spans to the API."""
    text = {"type": "string"}
    count = {"type": "integer", "minimum": 0}
    texts = {"type": "array", "items": text}
    scored = {"source": text, "score": {"type": "number"}}
    registry = SchemaRegistry()
    registry.register_type(
        RUN,
        _object(question=text, files=count),
        _object(answer=texts, sources=texts),
        title="Answer a question",
        description="One question from its planning to its answer.",
        template="{{question}}",
    )
    registry.register_type(
        PLAN,
        _object(question=text),
        _object(terms=texts),
        title="Plan",
        description="What to search for: the stems of the words that carry meaning.",
        template="{{question}}",
    )
    registry.register_type(
        READ,
        _object(file=text),
        _object(characters=count, lines=count, passages=count),
        title="Read a file",
        description="One file, read and cut into passages.",
        template="{{file}}",
    )
    registry.register_type(
        SEARCH,
        _object(terms=texts, passages=count),
        _object(matching=count, passages_by_term={"type": "object", "additionalProperties": count}),
        title="Search",
        description="Which passages hold any of the terms.",
        template="{{terms}}",
    )
    registry.register_type(
        RANK,
        _object(terms=texts, candidates=count),
        _object(best={"type": "array", "items": _object(**scored)}),
        title="Rank",
        description="The best of those passages by BM25.",
        template="{{candidates}} passages",
    )
    registry.register_type(
        ANSWER,
        _object(question=text, passages=texts),
        _object(sentences={"type": "array", "items": _object(text=text, **scored)}),
        title="Answer",
        description="The sentences of those passages that say the most about the question.",
        template="{{question}}",
    )
    return registry


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
