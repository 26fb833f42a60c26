"""Waiting for what happens in another process: there is no event for it, but there is a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(
    check: Callable[[], T | None],
    what: str,
    *,
    seconds: float,
    errors: tuple[type[Exception], ...] = (OSError,),
    pause: float = 0.05,
    details: Callable[[], str] = str,
) -> T:
    """Ask ``check`` again and again until it returns something true, and return that.

    Args:
        check: What to ask.
        what: What is waited for, as the error says it.
        seconds: How long to wait.
        errors: What ``check`` may raise as long as it is not yet time.
        pause: Seconds between two questions.
        details: More for the error, such as the end of a log.

    Raises:
        TimeoutError: It did not happen in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        last: object
        try:
            last = found = check()
        except errors as error:
            last = error
        else:
            if found:
                return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}; last answer: {last!r}\n{details()}")
        time.sleep(pause)
