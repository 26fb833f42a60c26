"""Tests that run in virtual time from their first line to their last, and tables that one test runs."""

import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, ParamSpec

from tests.support.virtual_time import run_virtual

P = ParamSpec("P")


def virtual(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Have pytest run an ``async def`` test in virtual time."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        run_virtual(test(*args, **kwargs))

    return run


def each(names: str, rows: Iterable[Any]) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Run a test once for each row, as one test; whatever it raises names its row.

    An ``async def`` test runs in virtual time, each row in a loop of its own.

    Args:
        names: The arguments that the rows are for, with commas between them.
        rows: Tuples, or single values where there is one name.
    """
    given = names.replace(" ", "").split(",")

    def decorate(test: Callable[..., Any]) -> Callable[..., None]:
        @functools.wraps(test)
        def run(**fixtures: Any) -> None:
            for row in rows:
                arguments = dict(zip(given, row if len(given) > 1 else [row], strict=True))
                try:
                    result = test(**arguments, **fixtures)
                    if inspect.iscoroutine(result):
                        run_virtual(result)
                except BaseException as error:
                    error.add_note(f"in the row {arguments}")
                    raise

        signature = inspect.signature(test)
        left = [one for one in signature.parameters.values() if one.name not in given]
        run.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
        return run

    return decorate
