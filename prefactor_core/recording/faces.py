"""The two faces of a recording call: it is made at once; then its caller awaits, or blocks for, the rest."""

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeAlias, TypeVar

from prefactor_core.recording.handover import Wait

P = ParamSpec("P")
R = TypeVar("R")

Recorded: TypeAlias = tuple[R, Wait | None]
"""What a recording call returns: the result, and what its caller has to wait for, if it has."""


async def awaiting(recorded: Recorded[R]) -> R:
    """Await the rest of what was recorded just now, and return its result."""
    result, wait = recorded
    if wait is not None:
        await wait
    return result


def blocking(recorded: Recorded[R]) -> R:
    """Block for the rest of what was recorded just now, and return its result."""
    result, wait = recorded
    if wait is not None:
        wait.block()
    return result


def awaited(record: Callable[P, Recorded[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Return the coroutine function that records at once when it is awaited, and waits for what is to be."""

    @wraps(record)
    async def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return await awaiting(record(*args, **kwargs))

    return call
