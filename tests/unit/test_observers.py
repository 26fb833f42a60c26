"""Observers: told of everything that is disposed of, and in nobody's way."""

import asyncio
from collections.abc import Sequence

import pytest

from prefactor_core import InMemoryQueue, TaskExecutor
from prefactor_core.hookspecs import hookimpl
from prefactor_core.plugins import observers
from prefactor_core.queue.base import DeadLetter


class Observer:
    def __init__(self) -> None:
        self.settled: list[str] = []
        self.dead: list[str] = []

    @hookimpl
    def prefactor_disposed(self, settled: Sequence[str], dead: Sequence[DeadLetter[str]]) -> None:
        self.settled += settled
        self.dead += [letter.item for letter in dead]


class Broken:
    @hookimpl
    def prefactor_disposed(self) -> None:
        raise RuntimeError("an observer's own mistake")


async def carry_out(item: str) -> None:
    if item.startswith("bad"):
        raise ValueError(item)


async def run(*own: object) -> TaskExecutor:
    queue: InMemoryQueue[str] = InMemoryQueue()
    executor = TaskExecutor(queue, carry_out, max_retries=0, observe=observers(*own))
    executor.start()
    for item in ("good-1", "bad-1", "good-2"):
        await queue.put(item)
    async with asyncio.timeout(10):
        await executor.stop()
    return executor


async def test_every_observer_is_told() -> None:
    first, second = Observer(), Observer()
    await run(first, second)
    for observer in (first, second):
        assert (sorted(observer.settled), observer.dead) == (["good-1", "good-2"], ["bad-1"])


async def test_an_observer_that_fails_costs_nothing_but_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    executor = await run(Broken())
    assert (executor.account.settled, executor.account.dead_lettered) == (2, 1)
    assert "an observer fails, and misses what is disposed of: RuntimeError" in caplog.text


def test_without_observers_nobody_is_told_and_a_misspelt_hook_is_an_error() -> None:
    assert observers() is None

    class Misspelt:
        @hookimpl
        def prefactor_dispossed(self) -> None:
            """Never called."""

    with pytest.raises(Exception, match="prefactor_dispossed"):
        observers(Misspelt())
