"""Threads that tests start, and what their finalisers do."""

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

_DEADLINE: Final = 120.0


def in_threads(*programs: Callable[[], object]) -> None:
    """Run each of these in a thread of its own; an error of one is raised here."""
    errors: list[BaseException] = []

    def guarded(program: Callable[[], object]) -> None:
        try:
            program()
        except BaseException as error:  # noqa: BLE001 -- raised by whoever started the thread
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(one,), daemon=True) for one in programs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_DEADLINE)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


def number_of(item: Any) -> tuple[int, int]:
    """Return which thread added an item, and as its how manieth."""
    thread, _, number = str(item).partition("-")
    return int(thread), int(number)


def check_order(taken: list[Any]) -> None:
    """What each thread added comes in its order, each once."""
    last: Counter[int] = Counter()
    for item in taken:
        thread, number = number_of(item)
        assert number == last[thread] + 1, item
        last[thread] = number


class Gone:
    """What does something as it is collected."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self._cycle = self

    def __del__(self) -> None:
        self._act()
