"""An owner to be frozen: run as ``frozen_owner.py URL FLAG``, it owns partition 0 and reads what is there.

When the file FLAG exists, it says whether it holds the partition still, and what of its messages is refused.
"""

import asyncio
import json
import sys
from pathlib import Path

from prefactor_rabbitmq.broker import RabbitBroker


async def main() -> None:
    url, flag = sys.argv[1], Path(sys.argv[2])
    end = RabbitBroker(url).consuming()
    partition = await end.acquire(0, 10)
    assert partition is not None
    messages = await partition.read(10, 1 << 20)
    say({"read": len(messages), "held": partition.held})
    while not flag.exists():  # noqa: ASYNC240 -- it takes microseconds
        await asyncio.sleep(0.02)
    held = partition.held
    refused = await partition.settle(messages)
    again = await end.acquire(0, 10)
    say({"held": held, "refused": len(refused), "again": again is not None})
    await end.disconnect()


def say(what: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


asyncio.run(main())
