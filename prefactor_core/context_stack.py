"""The stack of spans that are open in the current context, innermost last.

Each asyncio task has its own stack, beginning with what was open where the task was created. A span may be
entered in one task and left in another, so what was finished elsewhere is passed over, wherever it stands.

Every call but those that return or search the whole stack costs the same however many spans are open.
"""

import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from threading import get_ident
from typing import Final, Protocol

_SHORT: Final = 64
"""Up to this depth a stack is not swept."""


class Stacked(Protocol):
    """A span that tells whether it is over; once it is, it stays so."""

    @property
    def over(self) -> bool:
        """Whether it is."""


class _Node:
    """One span on top of a stack. Tasks share what is below, so no node ever changes what its stack holds.

    Only finished spans are cut out in place: they are finished for everybody.
    """

    __slots__ = ("below", "depth", "span", "span_id", "swept")

    def __init__(self, span_id: str, span: Stacked | None, below: "_Node | None") -> None:
        self.span_id = span_id
        self.span = span
        """``None`` for a plain id, which stays until it is popped."""
        self.below = below
        self.depth: int = 1 if below is None else below.depth + 1
        """Nodes from here on down, with those that were finished since the last sweep."""
        self.swept: int = _SHORT if below is None else below.swept
        """How many there were after the last sweep."""


# A context variable is the one place that follows a task.
_stack: Final[ContextVar[_Node | None]] = ContextVar("prefactor_span_stack", default=None)


_setting: Final[set[int]] = set()
"""Threads that are amid ``_set``."""


def _set(top: _Node | None) -> None:
    """Make a node the top of the stack of the current context.

    Until Python 3.12 the collector may run within that, and a finaliser that changed the context then would
    crash the interpreter. What it opens is not the innermost span meanwhile.
    """
    if sys.version_info >= (3, 12):
        _stack.set(top)
    elif (me := get_ident()) not in _setting:
        _setting.add(me)
        try:
            _stack.set(top)
        finally:
            _setting.discard(me)


def _open_from(node: _Node | None) -> _Node | None:
    """Return the first node from ``node`` on down whose span is not finished."""
    if node is None or node.span is None or not node.span.over:
        return node
    passed = [node]
    found = node.below
    while found is not None and found.span is not None and found.span.over:
        passed.append(found)
        found = found.below
    # What was passed over leads there directly from now on: other tasks may begin at any of it. Threads that
    # do so at once only ever lead further down.
    for one in passed:
        one.below = found
    return found


def _top() -> _Node | None:
    return _open_from(_stack.get())


def _down_from(node: _Node | None) -> Iterator[_Node]:
    """Yield ``node`` and what is open below it, and cut out the others."""
    while node is not None:
        yield node
        node.below = _open_from(node.below)
        node = node.below


def _sweep(top: _Node) -> None:
    """Cut out what was finished below ``top``, and count what is left."""
    kept = list(_down_from(top))
    for number, node in enumerate(reversed(kept), 1):
        # In place, so that other tasks on the same stack need not sweep it again.
        node.depth, node.swept = number, max(len(kept), _SHORT)


def push(span_id: str, span: Stacked | None = None) -> None:
    """Make a span the innermost one; without ``span`` it stays so until it is popped."""
    node = _Node(span_id, span, _top())
    if node.depth > 2 * node.swept:
        _sweep(node)
    _set(node)


def innermost(accept: Callable[[str], bool]) -> str | None:
    """Return the innermost span that ``accept`` takes, ``None`` if it takes none."""
    node = _top()
    while node is not None and not accept(node.span_id):
        node.below = _open_from(node.below)
        node = node.below
    return None if node is None else node.span_id


def uncover() -> None:
    """Let go of finished spans on top of the innermost one that is open."""
    _set(_top())


class SpanContextStack:
    """The ids of the spans that are open here. What was finished, here or elsewhere, is not among them."""

    @classmethod
    def get_stack(cls) -> list[str]:
        """Return the ids, outermost first."""
        return [node.span_id for node in _down_from(_top())][::-1]

    @classmethod
    def push(cls, span_id: str) -> None:
        """Make a span the innermost one, until it is popped."""
        push(span_id)

    @classmethod
    def pop(cls) -> str | None:
        """Remove the innermost span and return its id, ``None`` if there is none."""
        top = _top()
        _set(None if top is None else top.below)
        return None if top is None else top.span_id

    @classmethod
    def peek(cls) -> str | None:
        """Return the id of the innermost span, ``None`` if there is none."""
        top = _top()
        return None if top is None else top.span_id

    @classmethod
    def depth(cls) -> int:
        """Return how many spans are on the stack."""
        return sum(1 for _ in _down_from(_top()))

    @classmethod
    def is_empty(cls) -> bool:
        """Whether no span is on the stack."""
        return _top() is None
