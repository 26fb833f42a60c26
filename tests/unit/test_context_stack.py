"""The stack of open spans: one for each task, with removal by id."""

import asyncio
from collections.abc import Iterator
from weakref import WeakMethod

import pytest

from prefactor_core import SpanContextStack as Stack
from prefactor_core.context_stack import StackedSpan


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    clear()
    yield
    clear()


def clear() -> None:
    while Stack.pop() is not None:
        pass


def push(*spans: str) -> None:
    for span in spans:
        Stack.push(span)


def test_it_is_a_stack() -> None:
    assert (Stack.peek(), Stack.pop(), Stack.depth(), Stack.is_empty()) == (None, None, 0, True)
    push("a", "b")
    assert (Stack.peek(), Stack.depth(), Stack.is_empty(), Stack.get_stack()) == ("b", 2, False, ["a", "b"])
    assert (Stack.pop(), Stack.peek(), Stack.pop(), Stack.pop()) == ("b", "a", "a", None)


def test_the_list_is_a_copy() -> None:
    push("a")
    Stack.get_stack().append("b")
    assert Stack.get_stack() == ["a"]


@pytest.mark.parametrize(
    ("span", "left"), [("a", ["b", "c"]), ("b", ["a", "c"]), ("c", ["a", "b"]), ("x", ["a", "b", "c"])]
)
def test_a_span_is_removed_wherever_it_stands(span: str, left: list[str]) -> None:
    push("a", "b", "c")
    Stack.remove(span)
    assert Stack.get_stack() == left


def test_removing_from_an_empty_stack_is_no_error() -> None:
    Stack.remove("a")
    assert Stack.is_empty()


def test_innermost_asks() -> None:
    push("a1", "b1", "a2", "b2")
    assert Stack.innermost(lambda span: span.startswith("a")) == "a2"
    assert Stack.innermost(lambda span: span == "c") is None


class Owner:
    def __init__(self, *still_open: str) -> None:
        self.still_open = still_open

    def is_open(self, span_id: str) -> bool:
        return span_id in self.still_open


def test_pruning_asks_each_spans_owner_and_leaves_plain_ids() -> None:
    first, second, gone = Owner("a"), Owner("c"), Owner("e")
    for span, owner in (("a", first), ("b", first), ("c", second), ("d", second), ("e", gone)):
        Stack.push(StackedSpan(span, WeakMethod(owner.is_open)))
    Stack.push("plain")
    del gone, owner
    Stack.prune()
    assert Stack.get_stack() == ["a", "c", "plain"]


async def test_tasks_inherit_and_do_not_disturb_each_other() -> None:
    push("root")
    met = asyncio.Barrier(2)

    async def branch(name: str) -> list[str]:
        Stack.push(name)
        await met.wait()
        seen = Stack.get_stack()
        Stack.remove("root")
        await met.wait()
        return [*seen, "/", *Stack.get_stack()]

    seen = await asyncio.gather(branch("left"), branch("right"))
    assert list(seen) == [["root", "left", "/", "left"], ["root", "right", "/", "right"]]
    assert Stack.get_stack() == ["root"]


async def test_a_span_entered_in_one_task_is_removed_in_another() -> None:
    push("outer", "span")

    async def leave() -> list[str]:
        Stack.remove("span")
        return Stack.get_stack()

    assert await asyncio.create_task(leave()) == ["outer"]
    Stack.push("inner")
    Stack.remove("span")
    assert Stack.get_stack() == ["outer", "inner"]


async def test_a_thread_of_the_loop_sees_the_stack_of_its_caller() -> None:
    push("a")
    assert await asyncio.to_thread(Stack.get_stack) == ["a"]
