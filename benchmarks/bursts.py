"""How a span's cost is measured: with the standard library alone, for environments that lack this SDK."""

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, TypeAlias

BURST: Final = 20
"""Spans of a burst: what is measured in one piece."""
THREAD_BURST: Final = 400
"""The same in a thread: long enough for threads to meet, which take turns every 5 ms."""
_PAUSE: Final = 0.01
Fields: TypeAlias = dict[str, str | int | float]


def _of_size(size: int, text: str, fields: Fields) -> Fields:
    """Return the fields and a text of that name, so long that it all takes so many bytes as JSON."""
    taken = len(json.dumps({text: "", **fields}, separators=(",", ":")))
    return {text: ("what was said before " * size)[: size - taken], **fields}


PAYLOAD: Final = _of_size(800, "prompt", {"model": "a-model", "temperature": 0.2, "attempt": 1})
RESULT: Final = _of_size(400, "response", {"input": 120, "output": 42, "stop": "end"})


class Cost(NamedTuple):
    """What a span costs, in microseconds.

    Attributes:
        cpu: Processor time of the threads that record, the median of the bursts.
        mean: The same, the mean of all spans.
        p50: By the clock, the median of all spans.
        p99: By the clock, what one span in a hundred exceeds.
    """

    cpu: float
    mean: float
    p50: float
    p99: float


class _Recorded(NamedTuple):
    bursts: list[int]
    walls: list[int]


async def measure(record: Callable[[], Awaitable[None]], spans: int) -> Cost:
    """Measure what ``record`` costs, which records one of so many spans.

    It is called in bursts; whatever its SDK does in the event loop happens between them.
    """
    recorded = _Recorded([], [])
    for _ in range(spans // BURST):
        begin = time.thread_time_ns()
        for _ in range(BURST):
            entered = time.perf_counter_ns()
            await record()
            recorded.walls.append(time.perf_counter_ns() - entered)
        recorded.bursts.append(time.thread_time_ns() - begin)
        await asyncio.sleep(_PAUSE)
    return _cost([recorded], BURST)


def measure_threads(record: Callable[[], None], spans: int, threads: int) -> Cost:
    """Measure the same in so many threads at once, with their share of the spans each."""
    with ThreadPoolExecutor(threads) as executor:
        recorded = executor.map(_record, [record] * threads, [spans // threads] * threads)
        return _cost(list(recorded), THREAD_BURST)


def _record(record: Callable[[], None], spans: int) -> _Recorded:
    recorded = _Recorded([], [])
    for _ in range(spans // THREAD_BURST):
        begin = time.thread_time_ns()
        for _ in range(THREAD_BURST):
            entered = time.perf_counter_ns()
            record()
            recorded.walls.append(time.perf_counter_ns() - entered)
        recorded.bursts.append(time.thread_time_ns() - begin)
        time.sleep(_PAUSE)
    return recorded


def _cost(recorded: list[_Recorded], size: int) -> Cost:
    bursts = [burst / size / 1000 for each in recorded for burst in each.bursts]
    walls = statistics.quantiles((wall / 1000 for each in recorded for wall in each.walls), n=100)
    return Cost(statistics.median(bursts), statistics.mean(bursts), walls[49], walls[98])
