"""The virtual clock finds what it is for, so that the other tests can lean on it."""

import asyncio

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


def test_who_waits_for_nothing_is_found() -> None:
    async def program() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(DeadlockError):
        run_virtual(program())


def test_who_spins_is_found() -> None:
    async def program() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(BusyLoopError):
        run_virtual(program())


def test_who_takes_too_long_is_found() -> None:
    with pytest.raises(TooLateError):
        run_virtual(asyncio.sleep(100), latest=50)


def test_tasks_left_behind_are_found() -> None:
    async def program() -> None:
        program.task = asyncio.create_task(asyncio.sleep(5), name="left")  # type: ignore[attr-defined]

    with pytest.raises(LeftoverError, match="left"):
        run_virtual(program())
