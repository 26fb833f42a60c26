"""Receiving in tests: all waits are for a condition, and have a deadline."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from prefactor_core.testing.operations import keys_of
from prefactor_core.transport import Delivery, Operation, Queue

T = TypeVar("T")

PLENTY = 1 << 40


async def receive(queue: Queue[Operation], how_many: int, within: float) -> list[Delivery[Operation]]:
    """Return exactly the next ``how_many`` deliveries, held."""
    return await _receive(queue, how_many, within, settle=False)


async def handle(queue: Queue[Operation], how_many: int, within: float) -> list[Operation]:
    """Receive the next ``how_many``, settle them as they come, and return their operations."""
    return items(await _receive(queue, how_many, within, settle=True))


async def _receive(
    queue: Queue[Operation], how_many: int, within: float, *, settle: bool
) -> list[Delivery[Operation]]:
    found: list[Delivery[Operation]] = []
    try:
        async with asyncio.timeout(within):
            while len(found) < how_many:
                more = await queue.receive(how_many - len(found), PLENTY)
                if settle:
                    assert not await queue.settle(more), "refused, although nobody else wants it"
                found += more
    except TimeoutError:
        raise AssertionError(
            f"{len(found)} of {how_many} deliveries within {within:.0f} s: {keys_of(items(found))}"
        ) from None
    return found


def items(deliveries: Sequence[Delivery[Operation]]) -> list[Operation]:
    """Return what was delivered."""
    return [delivery.item for delivery in deliveries]


async def eventually(check: Callable[[], Awaitable[T]], wanted: Callable[[T], object], within: float) -> T:
    """Ask ``check`` until its answer is as ``wanted``, and return that."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while not wanted(answer := await check()):
        assert loop.time() < deadline, f"not within {within:.0f} s; the last answer was {answer!r}"
        await asyncio.sleep(0.05)
    return answer


async def drained(queue: Queue[Operation], within: float) -> None:
    """Wait until everything is disposed of."""
    await eventually(queue.depth, lambda depth: depth == 0, within)


def returns_at_once(call: Coroutine[Any, Any, object]) -> bool:
    """Run a coroutine to its first suspension, and return whether it came to its end without one."""
    try:
        call.send(None)
    except StopIteration:
        return True
    call.close()
    return False
