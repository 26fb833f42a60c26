"""The stack of spans that are open in the current context, innermost last.

Each asyncio task has its own stack, beginning with what was open where the task was created. A span may be
entered in one task and left in another, so entries are removed by id, wherever they stand.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Final, Self, TypeAlias
from weakref import WeakMethod

# A context variable is the one place that follows a task; the tuple keeps tasks from changing each other's.
_stack: Final[ContextVar[tuple[str, ...]]] = ContextVar("prefactor_span_stack", default=())


TellsOpen: TypeAlias = WeakMethod[Callable[[str], bool]]
"""Tells of a span's id whether it is open, without keeping alive who knows."""


class StackedSpan(str):
    """A span's id that knows whether the span is still open.

    Args:
        span_id: The id.
        is_open: Tells.
    """

    __slots__ = ("_is_open",)
    _is_open: TellsOpen

    def __new__(cls, span_id: str, is_open: TellsOpen) -> Self:
        """Make the id; its string is the plain one."""
        stacked = super().__new__(cls, span_id)
        stacked._is_open = is_open
        return stacked

    @property
    def is_open(self) -> bool:
        """Whether the span is open, as far as its client still exists."""
        is_open = self._is_open()
        return is_open is not None and is_open(self)


class SpanContextStack:
    """The ids of the spans that are open here."""

    @classmethod
    def get_stack(cls) -> list[str]:
        """Return the ids, outermost first."""
        return list(_stack.get())

    @classmethod
    def push(cls, span_id: str) -> None:
        """Make a span the innermost one."""
        _stack.set((*_stack.get(), span_id))

    @classmethod
    def pop(cls) -> str | None:
        """Remove the innermost span and return its id, ``None`` if there is none."""
        stack = _stack.get()
        if not stack:
            return None
        _stack.set(stack[:-1])
        return stack[-1]

    @classmethod
    def peek(cls) -> str | None:
        """Return the id of the innermost span, ``None`` if there is none."""
        stack = _stack.get()
        return stack[-1] if stack else None

    @classmethod
    def depth(cls) -> int:
        """Return how many spans are on the stack."""
        return len(_stack.get())

    @classmethod
    def is_empty(cls) -> bool:
        """Whether no span is on the stack."""
        return not _stack.get()

    @classmethod
    def remove(cls, span_id: str) -> None:
        """Remove a span wherever it stands; one that is not there is no error."""
        stack = _stack.get()
        if stack and stack[-1] == span_id:
            _stack.set(stack[:-1])
        elif span_id in stack:
            _stack.set(tuple(entry for entry in stack if entry != span_id))

    @classmethod
    def innermost(cls, accept: Callable[[str], bool]) -> str | None:
        """Return the innermost span that ``accept`` takes, ``None`` if it takes none."""
        for span_id in reversed(_stack.get()):
            if accept(span_id):
                return span_id
        return None

    @classmethod
    def prune(cls) -> None:
        """Remove the spans that were finished in another task, of whatever client."""
        _stack.set(
            tuple(entry for entry in _stack.get() if not isinstance(entry, StackedSpan) or entry.is_open)
        )
