"""The virtual clock finds what it is for, so that the other tests can lean on it."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from tests.support.virtual_time import (
    BusyLoopError,
    DeadlockError,
    LeftoverError,
    TooLateError,
    run_virtual,
)


def test_hours_pass_at_once_and_exactly() -> None:
    async def program() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.gather(asyncio.sleep(3600), asyncio.sleep(7200.5))
        return loop.time() - began

    assert run_virtual(program()) == pytest.approx(7200.5)


async def waits_for_nothing() -> None:
    await asyncio.get_running_loop().create_future()


async def spins() -> None:
    while True:
        await asyncio.sleep(0)


async def takes_too_long() -> None:
    await asyncio.sleep(100)


async def leaves_a_task_behind() -> None:
    LEFT.append(asyncio.create_task(asyncio.sleep(5), name="left"))


LEFT: list[asyncio.Task[None]] = []


@pytest.mark.parametrize(
    ("program", "error"),
    [
        (waits_for_nothing, DeadlockError),
        (spins, BusyLoopError),
        (takes_too_long, TooLateError),
        (leaves_a_task_behind, LeftoverError),
    ],
)
def test_what_goes_wrong_is_found(
    program: Callable[[], Coroutine[None, None, None]], error: type[Exception]
) -> None:
    with pytest.raises(error):
        run_virtual(program(), latest=50)
