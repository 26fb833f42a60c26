"""Whether memory stays flat: spans paced at a steady rate in one process.

``python -m benchmarks.memory [SPANS] [PER_SECOND]``: resident memory every 20,000 spans.
"""

import asyncio
import gc
import sys
from pathlib import Path

from benchmarks.load import client_for, new_instance, one_span
from benchmarks.stand_in import stand_in

_STEP = 20_000
_SPANS_PER_INSTANCE = 500


def resident_mib() -> float:
    """Return this process's resident memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS in /proc/self/status")


async def _main(spans: int, per_second: int) -> None:
    loop = asyncio.get_running_loop()
    async with stand_in(20) as url:
        client = client_for(url)
        await client.initialize()
        begin = loop.time()
        instance = await new_instance(client)
        for done in range(1, spans + 1):
            await one_span(instance)
            if done % _SPANS_PER_INSTANCE == 0:
                await instance.finish()
                instance = await new_instance(client)
            if done % 10 == 0:
                await asyncio.sleep(max(0.0, begin + done / per_second - loop.time()))
            if done % _STEP == 0:
                gc.collect()
                rate = done / (loop.time() - begin)
                print(f"{done:>8,} spans  {resident_mib():7.1f} MiB  {rate:,.0f}/s", flush=True)
        await instance.finish()
        print(await client.close())


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:]]
    asyncio.run(_main(*(arguments + [200_000, 3_000][len(arguments) :])))
