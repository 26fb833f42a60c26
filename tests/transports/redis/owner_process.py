"""An owner that a test freezes: reads until it owns nothing any more, and says what it got."""

import asyncio
import json
import sys
from collections.abc import Sequence

from prefactor_core.broker.driver import Message
from prefactor_core.exceptions import BrokerError
from prefactor_redis.broker import RedisBroker


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def main(url: str) -> None:
    end = RedisBroker(url).consuming()
    partition = await end.acquire(0, 100)
    assert partition is not None
    first = await partition.read(1, 1_000)
    served: list[Message] = []
    refused: Sequence[Message] = []
    say("reading")
    try:
        while True:
            served += await partition.read(10, 1_000)
    except BrokerError:
        refused = await partition.settle(first)
    outcome = {
        "served": [message.data.decode() for message in served],
        "held": partition.held,
        "refused": len(refused),
    }
    say(json.dumps(outcome))
    await end.disconnect()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
