"""The current span where threads share a context, or copies of one."""

import asyncio
import contextvars
import random
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest

from prefactor_core import (
    AgentInstanceHandle,
    SpanContext,
    SpanContextStack,
    context_stack,
)
from tests.client.threads import (
    DEADLINE,
    THREADS,
    check_sequence,
    each_in_its_loop,
    emptied_elsewhere,
    keys_by_instance,
    parents_of,
)
from tests.support.threads import in_threads


@dataclass
class OpenFlag:
    """A span on a stack."""

    over: bool = False


@pytest.mark.usefixtures("eager_switches")
def test_a_stack_that_threads_share_never_leads_in_a_circle_or_out_of_order() -> None:
    rng = random.Random(7)  # noqa: S311 -- it decides over a test
    for _ in range(20):
        order: dict[str, int] = {}
        flags: list[OpenFlag] = []
        context = contextvars.copy_context()

        def build() -> None:
            for number in range(100):
                flag = OpenFlag()
                flags.append(flag)  # noqa: B023 -- called in this turn
                order[f"base-{number}"] = number  # noqa: B023
                context_stack.push(f"base-{number}", flag)

        context.run(build)
        ended = flags[:]
        rng.shuffle(ended)

        def look() -> None:
            for number in range(60):
                own = OpenFlag()
                context_stack.push(f"own-{number}", own)
                stack = SpanContextStack.get_stack()
                assert stack[-1] == f"own-{number}"
                places = [order[one] for one in stack[:-1]]  # noqa: B023
                assert places == sorted(set(places))
                own.over = True
                context_stack.uncover()
                innermost = context_stack.innermost(lambda one: one.startswith("base-"))
                assert innermost is None or innermost in order  # noqa: B023
                assert SpanContextStack.peek() is None or str(SpanContextStack.peek()).startswith("base-")

        def end() -> None:
            for flag in ended[:-1]:  # noqa: B023
                flag.over = True

        copies = [context.copy() for _ in range(THREADS)]
        in_threads(end, *[lambda copy=copy: copy.run(look) for copy in copies])
        last = next(f"base-{number}" for number, flag in enumerate(flags) if not flag.over)
        assert [copy.run(SpanContextStack.get_stack) for copy in copies] == [[last]] * THREADS


class Lineage:
    """Spans that are open where threads begin, of two instances, and what threads open below them."""

    def __init__(self, instance: AgentInstanceHandle, other: AgentInstanceHandle) -> None:
        self.instance = instance
        self.other = other
        self.own: list[SpanContext] = []
        self.others: list[SpanContext] = []
        self.possible: dict[str, set[str | None]] = {}

    async def begin(self) -> contextvars.Context:
        """Open spans, and return the context in which they are open."""
        for _ in range(4):
            for _ in range(4):
                self.own.append(await self.instance.span("t:outer").__aenter__())
            self.others.append(await self.other.span("t:outer").__aenter__())
        return contextvars.copy_context()

    async def end(self) -> None:
        """End all of them but the outermost, one way and the other."""
        for span in (*self.own[2::2], *self.others, *reversed(self.own[1::2])):
            await span.complete()

    async def agent(self) -> None:
        """Open spans below them, whichever are left."""
        base = {span.id for span in self.own}
        for _ in range(10):
            async with self.instance.span("t:inner") as outer:
                self.possible[outer.id] = {*base}
                async with self.other.span("t:outer"), self.instance.span("t:inner") as inner:
                    self.possible[inner.id] = {outer.id}
            by_hand = await self.instance.create_span("t:by-hand")
            self.possible[by_hand] = {*base}
            below = await asyncio.to_thread(asyncio.run, self.instance.create_span("t:by-hand"))
            self.possible[below] = {by_hand}
            await self.instance.finish_span(by_hand)
            await self.instance.finish_span(below)


def in_a_copy(
    context: contextvars.Context, program: Callable[[], Coroutine[Any, Any, None]]
) -> Callable[[], None]:
    """Return what runs a coroutine function in a loop of its own, in a copy of a context."""
    copy = context.copy()
    return lambda: copy.run(asyncio.run, program())


@pytest.mark.usefixtures("eager_switches")
async def test_spans_opened_in_copies_of_one_context_have_its_open_spans_as_parents() -> None:
    """Threads begin where a task stands, whose spans end meanwhile, in whatever order."""
    async with emptied_elsewhere() as (_, queue, instances):
        for _ in range(10):
            lineage = Lineage(*instances[:2])
            context = await asyncio.create_task(lineage.begin())
            programs = [in_a_copy(context, program) for program in (*[lineage.agent] * 3, lineage.end)]
            async with asyncio.timeout(DEADLINE):
                await asyncio.to_thread(in_threads, *programs)
            assert context.run(SpanContextStack.get_stack) == [lineage.own[0].id]
            await lineage.own[0].complete()
            assert context.run(SpanContextStack.is_empty)
            found = parents_of(queue.puts)
            assert all(found[span] in possible for span, possible in lineage.possible.items())
        for keys in keys_by_instance(queue.puts).values():
            check_sequence(keys)


async def test_what_a_thread_opens_is_no_parent_in_another_context() -> None:
    async with emptied_elsewhere() as (_, queue, (instance, *_)):
        async with instance.span("t:outer") as outer:

            async def agent() -> None:
                async with instance.span("t:inner"):
                    held.set()
                    await asyncio.to_thread(leave.wait, DEADLINE)

            held, leave = threading.Event(), threading.Event()
            # to_thread copies this context, in_threads' threads have an empty one.
            copied = asyncio.create_task(asyncio.to_thread(asyncio.run, agent()))
            await asyncio.to_thread(held.wait, DEADLINE)
            mine = await instance.create_span("t:by-hand")
            leave.set()
            await copied
            await instance.finish_span(mine)
            alone: list[str] = []

            async def unrelated() -> None:
                alone.append(await instance.create_span("t:by-hand"))

            await each_in_its_loop(unrelated)
        found = parents_of(queue.puts)
        assert found[mine] == outer.id
        assert found[alone[0]] is None
        assert sorted(map(str, found.values())) == sorted(["None", "None", outer.id, outer.id])
