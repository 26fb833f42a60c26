"""A reader to be killed: run as ``dead_letter_reader.py URL COUNT``, it reads so many letters and waits."""

import asyncio
import sys

from prefactor_rabbitmq.broker import RabbitBroker


async def main() -> None:
    url, count = sys.argv[1], int(sys.argv[2])
    end = RabbitBroker(url).dead_letters()
    read = 0
    async for _ in end.read():
        read += 1
        if read == count:
            sys.stdout.write("read\n")
            sys.stdout.flush()
            await asyncio.sleep(60)


asyncio.run(main())
