"""Publishers of one partition in a process of their own: several ends, each with its own batches.

    python -m prefactor_core.testing.publisher URL NAME ENDS MESSAGES

It says ``ready`` in a line of JSON once all are connected, and begins at the next line of its standard input.
At the moment at which the last batch is confirmed it says ``published`` and is killed.
"""

import asyncio
import os
import signal
import sys
from typing import Final

from prefactor_core.plugins import create_queue
from prefactor_core.testing.consumer import say
from prefactor_core.testing.operations import numbered
from prefactor_core.transport import BrokerError, BrokerQueue, PrefactorCoreConfig, PublishingEnd

_LARGEST_BATCH: Final = 3
_PAUSE: Final = 0.05


async def publish(url: str, name: str, how_many_ends: int, how_many: int) -> None:
    """Publish so many messages through each of so many ends to partition 0, all at the same time."""
    queue = create_queue(url, PrefactorCoreConfig())
    assert isinstance(queue, BrokerQueue)
    ends = [queue.broker.publishing() for _ in range(how_many_ends)]
    for end in ends:
        await end.partitions()
    say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    left = how_many_ends

    async def send(end: PublishingEnd, own: list[bytes]) -> None:
        nonlocal left
        await _publish(end, own)
        left -= 1
        if not left:
            # At once, with nothing in between: what is confirmed is safe already.
            say("published")
            os.kill(os.getpid(), signal.SIGKILL)

    async with asyncio.TaskGroup() as together:
        for number, end in enumerate(ends):
            together.create_task(send(end, numbered(f"{name}.{number}", how_many)))


async def _publish(end: PublishingEnd, own: list[bytes]) -> None:
    """Publish messages in small batches; what is not confirmed is sent again, as agents do."""
    at, size = 0, 1
    while at < len(own):
        batch = own[at : at + size]
        try:
            await end.publish(0, batch)
        except BrokerError as error:
            at += error.confirmed
            await asyncio.sleep(_PAUSE)
        else:
            at += len(batch)
            size = size % _LARGEST_BATCH + 1


if __name__ == "__main__":
    asyncio.run(publish(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
