"""The stack of open spans: one for each task."""

import asyncio
import gc
from collections.abc import Iterator

import pytest

from prefactor_core import SpanContextStack as Stack
from prefactor_core import context_stack


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


class Counted:
    """A span that asks whether it is open."""

    def __init__(self, name: str, counting: "Counting") -> None:
        self._name = name
        self._counting = counting

    @property
    def over(self) -> bool:
        self._counting.asked += 1
        return self._name not in self._counting.open


class Counting:
    """Knows which spans are open, and counts how often it is asked: a measure of the work that calls take."""

    def __init__(self) -> None:
        self.open: set[str] = set()
        self.asked = 0

    def enter(self, name: str) -> None:
        self.open.add(name)
        context_stack.push(name, Counted(name, self))

    def leave(self, name: str) -> None:
        self.open.remove(name)
        context_stack.uncover()


def test_it_is_a_stack_whose_list_is_a_copy() -> None:
    assert (Stack.peek(), Stack.pop(), Stack.depth(), Stack.is_empty()) == (None, None, 0, True)
    push("a", "b")
    Stack.get_stack().append("c")
    assert (Stack.peek(), Stack.depth(), Stack.is_empty(), Stack.get_stack()) == ("b", 2, False, ["a", "b"])
    assert (Stack.pop(), Stack.peek(), Stack.pop(), Stack.pop()) == ("b", "a", "a", None)


def test_innermost_asks() -> None:
    push("a1", "b1", "a2", "b2")
    assert context_stack.innermost(lambda span: span.startswith("a")) == "a2"
    assert context_stack.innermost(lambda span: span == "c") is None


def test_each_span_is_asked_and_plain_ids_stay() -> None:
    first, second = Counting(), Counting()
    for span, owner in (("a", first), ("b", first), ("c", second), ("d", second)):
        owner.enter(span)
    Stack.push("plain")
    first.open.remove("b")
    second.open.remove("d")
    assert Stack.get_stack() == ["a", "c", "plain"]


async def test_tasks_inherit_and_do_not_disturb_each_other() -> None:
    push("root")
    met = asyncio.Barrier(2)

    async def branch(name: str) -> list[str]:
        Stack.push(name)
        await met.wait()
        seen = Stack.get_stack()
        Stack.pop()
        Stack.pop()
        await met.wait()
        return [*seen, "/", *Stack.get_stack()]

    seen = await asyncio.gather(branch("left"), branch("right"))
    assert list(seen) == [["root", "left", "/"], ["root", "right", "/"]]
    assert Stack.get_stack() == ["root"]


async def test_a_thread_of_the_loop_sees_the_stack_of_its_caller() -> None:
    push("a")
    assert await asyncio.to_thread(Stack.get_stack) == ["a"]


def test_a_finished_span_is_nowhere() -> None:
    spans = Counting()
    for name in "abcde":
        spans.enter(name)
    spans.open -= {"b", "c", "e"}  # in other tasks
    assert (Stack.get_stack(), Stack.peek(), Stack.depth()) == (["a", "d"], "d", 2)
    Stack.push("plain")
    spans.open.clear()
    assert (Stack.get_stack(), Stack.pop(), Stack.pop(), Stack.is_empty()) == (["plain"], "plain", None, True)


async def test_what_one_task_finds_finished_is_finished_for_all_and_no_more_than_that() -> None:
    spans = Counting()
    for name in "abc":
        spans.enter(name)
    spans.open.remove("b")

    async def inside() -> list[str]:
        Stack.push("inner")
        return Stack.get_stack()

    assert await asyncio.create_task(inside()) == ["a", "c", "inner"]
    assert Stack.get_stack() == ["a", "c"]


async def _asked(spans: int, order: str) -> float:
    """Return how often it was asked whether a span is open, for each of so many opened and finished."""

    async def life() -> float:
        counting = Counting()
        names = [f"{number}" for number in range(spans)]
        for name in names:
            counting.enter(name)
            Stack.peek()
        if order == "elsewhere":
            # Those below are finished in other tasks while new ones come and go on top.
            for name in names:
                counting.open.remove(name)
                counting.enter(f"later {name}")
        else:
            for name in names if order == "oldest first" else reversed(names):
                counting.leave(name)
            assert Stack.is_empty()
        return counting.asked / spans

    return await asyncio.create_task(life())


@pytest.mark.parametrize("order", ["oldest first", "newest first", "elsewhere"])
async def test_a_span_costs_the_same_among_many(order: str) -> None:
    few, many = await _asked(2_000, order), await _asked(20_000, order)
    assert many < 1.5 * few, f"{few:.1f} looks a span among 2,000, {many:.1f} among 20,000"


async def test_what_is_finished_below_an_open_span_is_let_go() -> None:
    spans = Counting()
    spans.enter("0")
    for number in range(1, 10_000):
        spans.enter(f"{number}")  # on top before the one below is finished
        spans.open.remove(f"{number - 1}")
    kept = sum(isinstance(held, Counted) for held in gc.get_objects(generation=None))
    assert Stack.get_stack() == ["9999"]
    assert kept < 200


async def test_many_tasks_on_one_deep_stack_do_not_all_sweep_it() -> None:
    spans = Counting()
    for number in range(128):  # one more is swept
        spans.enter(f"{number}")
    spans.asked = 0

    async def inside() -> None:
        spans.enter("inner")
        spans.leave("inner")

    for _ in range(1_000):
        await asyncio.create_task(inside())
    assert spans.asked < 10_000
