"""A cancellation ends whoever waits for the server, wherever it comes."""

import asyncio

from tests.transports.redis.conftest import Ends

_STEPS = 60
"""Turns of the event loop that one call and a part of the next one take."""


async def test_no_cancellation_is_swallowed(ends: Ends) -> None:
    end = ends.dead_letters()
    await end.count()

    async def ask_for_ever() -> None:
        while True:
            await end.count()

    swallowed: list[int] = []
    for steps in range(_STEPS):
        asking = asyncio.create_task(ask_for_ever())
        for _ in range(steps):
            await asyncio.sleep(0)
        asking.cancel()
        done, _ = await asyncio.wait([asking], timeout=5)
        if not done:
            swallowed.append(steps)
            while not asking.done():
                asking.cancel()
                await asyncio.sleep(0.01)
    assert swallowed == []
