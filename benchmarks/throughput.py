"""How many spans a second reach the API from one process, agent and sender on one core.

``python -m benchmarks.throughput [SPANS]``: 20 instances, 10 tasks, an API that answers at once and one that
takes 20 ms; alternated, five rounds. The clock runs from the first span until everything is settled.
"""

import asyncio
import statistics
import sys
import time

from benchmarks.load import client_for, new_instance, one_span
from benchmarks.stand_in import stand_in

_ROUNDS = 5


async def _run(url: str, spans: int) -> float:
    client = client_for(url, buffer_operations=10 * spans)
    await client.initialize()
    instances = [await new_instance(client) for _ in range(20)]
    begin = time.perf_counter()

    async def task(number: int) -> None:
        for turn in range(spans // 10):
            await one_span(instances[(number + 10 * turn) % 20])
            await asyncio.sleep(0)

    await asyncio.gather(*(task(number) for number in range(10)))
    for instance in instances:
        await instance.finish()
    summary = await client.close(timeout=120)
    assert summary.complete, summary
    return spans / (time.perf_counter() - begin)


async def _main(spans: int) -> None:
    rates: dict[str, list[float]] = {"at once": [], "20 ms": []}
    async with stand_in(0) as fast, stand_in(20) as slow:
        for _ in range(_ROUNDS):
            rates["at once"].append(await _run(fast, spans))
            rates["20 ms"].append(await _run(slow, spans))
    for name, values in rates.items():
        low, high = min(values), max(values)
        print(f"{name:>8}: {statistics.median(values):8,.0f} spans/s ({low:,.0f} to {high:,.0f})")


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000))
