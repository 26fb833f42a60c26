"""A worker that a test freezes or kills while it handles an operation, which it never gets to settle.

Says ``begun`` and whether it may handle the operation; once it has lost the partition and said so to the
broker, it says ``back`` and waits for a line.
"""

import asyncio
import json
import sys

from prefactor_core.broker.driver import ConsumingEnd, Partition
from prefactor_core.exceptions import BrokerError
from prefactor_redis.broker import RedisBroker


def say(word: str, *, allowed: bool = True) -> None:
    sys.stdout.write(json.dumps([word, allowed]) + "\n")
    sys.stdout.flush()


async def owned(end: ConsumingEnd) -> Partition:
    while True:
        try:
            await end.fleet()
            partition = await end.acquire(0, 100)
        except BrokerError:
            partition = None
        if partition is not None:
            return partition
        await asyncio.sleep(0.02)


async def told(end: ConsumingEnd) -> None:
    while True:
        try:
            await end.fleet()
        except BrokerError:
            await asyncio.sleep(0.05)
        else:
            return


async def main(url: str) -> None:
    end = RedisBroker(url).consuming()
    while True:
        partition = await owned(end)
        (message,) = await partition.read(1, 1_000)
        say("begun", allowed=await partition.begin(message))
        while partition.held:
            await asyncio.sleep(0.02)
        await partition.release()
        await told(end)
        say("back")
        await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
