"""A worker that a test freezes or kills while it handles an operation, which it never gets to settle.

Says ``begun`` and whether it may handle the operation; once it has lost the partition and said so to the
broker, it says ``back`` and waits for a line.
"""

import asyncio
import sys

from prefactor_core.testing.consumer import say
from prefactor_redis.broker import RedisBroker
from tests.transports.rig import own, until


async def main(url: str) -> None:
    end = RedisBroker(url).consuming()
    while True:
        await until(end.fleet, "a fleet")
        partition = await own(end)
        (message,) = await partition.read(1, 1_000)
        say("begun", allowed=await partition.begin(message))
        while partition.held:
            await asyncio.sleep(0.02)
        await partition.release()
        await until(end.fleet, "the broker to be told")
        say("back")
        await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
