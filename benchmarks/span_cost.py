"""What a span costs the agent, in microseconds, whatever the API's latency.

``python -m benchmarks.span_cost [SPANS]``: 10 agents pace their spans; the API answers at once, after 20 ms,
or is unavailable. The three are alternated, five rounds; the figure is the time inside the SDK's calls.
"""

import asyncio
import statistics
import sys

from benchmarks.load import client_for, new_instance, one_span
from benchmarks.stand_in import stand_in

_ROUNDS = 5
_UNAVAILABLE = "http://127.0.0.1:9"


async def _agent(url: str, spans: int) -> list[float]:
    client = client_for(url)
    await client.initialize()
    costs: list[float] = []

    async def run() -> None:
        instance = await new_instance(client)
        for _ in range(spans // 10):
            costs.append(await one_span(instance))
            await asyncio.sleep(0.002)
        await instance.finish()

    await asyncio.gather(*(run() for _ in range(10)))
    await client.close(timeout=0.2 if url == _UNAVAILABLE else 30)
    return costs


async def _main(spans: int) -> None:
    costs: dict[str, list[float]] = {"at once": [], "20 ms": [], "unavailable": []}
    async with stand_in(0) as fast, stand_in(20) as slow:
        for _ in range(_ROUNDS):
            for name, url in (("at once", fast), ("20 ms", slow), ("unavailable", _UNAVAILABLE)):
                costs[name] += await _agent(url, spans)
    print(f"{'API':>8}  {'spans':>7}  {'median us':>9}  {'p99 us':>8}")
    for name, values in costs.items():
        cuts = statistics.quantiles(values, n=100)
        print(f"{name:>8}  {len(values):>7}  {cuts[49] * 1e6:9.1f}  {cuts[98] * 1e6:8.1f}")


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000))
