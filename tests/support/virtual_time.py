"""An event loop whose clock is virtual: when nothing is ready it jumps to the next timer.

Minutes of backoff and outage pass in milliseconds, the same in every run. A program that can never go on
(nothing is ready, and no timer is set) is an error, and so is one that spins without time passing, and one
that leaves tasks behind.
"""

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

_DAY = 86_400.0
_MOST_TURNS = 200_000


class DeadlockError(Exception):
    """Nothing is ready and no timer is set: nothing will ever happen again."""


class BusyLoopError(Exception):
    """The loop turns and turns while no time passes."""


class TooLateError(Exception):
    """More virtual time has passed than the test allows."""


class LeftoverError(Exception):
    """The program ended and left tasks behind, or errors that nobody looked at."""


class _NoSelector(selectors.BaseSelector):
    """Never waits for anything real: a wait moves the clock."""

    def __init__(self) -> None:
        self._keys: dict[Any, selectors.SelectorKey] = {}
        self.now = 0.0
        self.latest = _DAY
        self._turns = 0
        self.loop: asyncio.AbstractEventLoop | None = None

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(fileobj, fileobj if isinstance(fileobj, int) else 0, events, data)
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise DeadlockError(f"nothing will ever happen again; waiting: {_waiting(self.loop)}")
        if timeout > 0:
            self._turns = 0
            self.now += timeout
            if self.now > self.latest:
                raise TooLateError(f"more than {self.latest} s have passed; waiting: {_waiting(self.loop)}")
        else:
            self._turns += 1
            if self._turns > _MOST_TURNS:
                raise BusyLoopError(f"{_MOST_TURNS} turns without time passing; tasks: {_waiting(self.loop)}")
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a virtual clock that starts at 1,000 s."""

    def __init__(self, latest: float = _DAY) -> None:
        self._virtual = _NoSelector()
        self._virtual.now = 1_000.0
        self._virtual.latest = 1_000.0 + latest
        super().__init__(self._virtual)
        self._virtual.loop = self
        self.unseen: list[str] = []
        self.set_exception_handler(lambda _, context: self.unseen.append(str(context)))

    def time(self) -> float:
        return self._virtual.now


def _waiting(loop: asyncio.AbstractEventLoop | None) -> str:
    if loop is None:
        return "nobody"
    return ", ".join(sorted(task.get_name() for task in asyncio.all_tasks(loop))) or "nobody"


def run_virtual(program: Coroutine[Any, Any, T], *, latest: float = _DAY) -> T:
    """Run ``program`` in virtual time and return its result.

    Args:
        program: A coroutine.
        latest: Seconds of virtual time that it may take.

    Raises:
        DeadlockError: It can never go on.
        BusyLoopError: It spins.
        TooLateError: It takes longer than ``latest``.
        LeftoverError: It left tasks running, or errors that nobody looked at.
    """
    loop = VirtualLoop(latest)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        result = runner.run(_and_nothing_left(program))
    if loop.unseen:
        raise LeftoverError(f"errors that nobody looked at: {loop.unseen}")
    return result


async def _and_nothing_left(program: Coroutine[Any, Any, T]) -> T:
    result = await program
    for _ in range(3):  # what was cancelled ends in the next turns
        await asyncio.sleep(0)
    left = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    if left:
        raise LeftoverError(f"tasks left behind: {left}")
    return result
