"""How many operations a second one agent process gets confirmed by a broker, 1 KB each.

``python -m benchmarks.publishing [URL ...]``: a Redis that writes its log every second and a RabbitMQ, both
of this run's own, or those at the URLs, each under a prefix that is deleted afterwards. "put": operations
made beforehand go into the queue. "spans": a client makes them, two a span. Alternated, five rounds. The
clock runs from the first put until ``flush`` says that everything is confirmed; "CPU" is this process's part.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from benchmarks.brokers import fresh_prefix
from benchmarks.load import SCHEMAS
from prefactor_core import Operation, OperationType, PrefactorCoreClient, PrefactorCoreConfig
from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.plugins import create_queue
from tests.support.brokers.rabbitmq_server import RabbitServer
from tests.support.brokers.redis_server import RedisServer

_ROUNDS = 5
_INSTANCES = 50
_TASKS = 10
_TEXT = {"text": "what was said before " * 38}  # with its ids and key an operation of 1 KB
_NUMBERS = {"redis": (50_000, 20_000), "amqp": (15_000, 5_000)}
"""Operations a round, and how many a second are asked for."""


class Speed(NamedTuple):
    """One round's outcome."""

    rate: float
    cpu: float


def _config(url: str, number: int) -> PrefactorCoreConfig:
    return PrefactorCoreConfig(transport_url=url, buffer_operations=4 * number, buffer_bytes=2**30)


def _operation(number: int) -> Operation:
    return Operation(
        OperationType.CREATE_SPAN,
        {
            "instance_id": f"instance-{number % _INSTANCES:04}",
            "span_id": f"span-{number:016}",
            "schema_name": "bench:step",
            "status": "active",
            "payload": _TEXT,
        },
        datetime.now(UTC),
        f"span-{number:016}:create",
    )


async def _put(url: str, number: int) -> Speed:
    operations = [_operation(one) for one in range(number)]
    queue = create_queue(url, _config(url, number))
    assert isinstance(queue, BrokerQueue)
    await queue.put(operations[0])
    assert await queue.flush(60)  # connected, and everything is declared
    begin, cpu = time.perf_counter(), time.process_time()
    for count, operation in enumerate(operations):
        await queue.put(operation)
        if count % 20 == 0:
            await asyncio.sleep(0)  # as a span's own work would
    assert await queue.flush(120)
    taken, used = time.perf_counter() - begin, time.process_time() - cpu
    assert queue.published.confirmed == number + 1
    await queue.close()
    await queue.disconnect()
    return Speed(number / taken, used / taken)


async def _spans(url: str, number: int) -> Speed:
    client = PrefactorCoreClient(_config(url, number))
    await client.initialize()
    instances = [
        await client.create_agent_instance(
            agent_version={"name": "bench", "external_identifier": "1"}, agent_schema_version=SCHEMAS
        )
        for _ in range(_INSTANCES)
    ]
    for instance in instances:
        await instance.start()
    assert await client.flush(60)
    begin, cpu = time.perf_counter(), time.process_time()

    async def task(first: int) -> None:
        for turn in range(first, number // 2, _TASKS):
            async with instances[turn % _INSTANCES].span("bench:step", payload=_TEXT) as span:
                await span.start()
                span.set_result(_TEXT)
            await asyncio.sleep(0)

    await asyncio.gather(*(task(first) for first in range(_TASKS)))
    assert await client.flush(120)
    taken, used = time.perf_counter() - begin, time.process_time() - cpu
    summary = await client.close()
    assert summary.delivered == 2 * _INSTANCES + 2 * (number // 2), summary
    return Speed(number / taken, used / taken)


@contextmanager
def _own_brokers() -> Iterator[list[str]]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        urls = []
        for server in (
            RedisServer(Path(folder, "redis"), "appendfsync everysec"),
            RabbitServer(Path(folder, "rabbitmq")),
        ):
            servers.callback(server.close)
            server.start()
            urls.append(server.url)
        yield urls


async def _main(urls: list[str]) -> None:
    ways = {"put": _put, "spans": _spans}
    speeds: dict[tuple[str, str], list[Speed]] = {(url, way): [] for url in urls for way in ways}
    for _ in range(_ROUNDS):
        for (url, way), found in speeds.items():
            number, _asked = _NUMBERS[urlsplit(url).scheme]
            async with fresh_prefix(url) as place:
                found.append(await ways[way](place, number))
    print(f"an operation takes {_operation(0).size} bytes")
    for (url, way), found in speeds.items():
        scheme = urlsplit(url).scheme
        rates = [speed.rate for speed in found]
        print(
            f"{scheme:>6} {way:>6}: {statistics.median(rates):8,.0f} operations/s "
            f"({min(rates):,.0f} to {max(rates):,.0f}), asked for {_NUMBERS[scheme][1]:,}; "
            f"CPU {statistics.median(speed.cpu for speed in found):.0%}"
        )


def main() -> None:
    """Measure at the URLs given, or at brokers of this run's own."""
    if sys.argv[1:]:
        asyncio.run(_main(sys.argv[1:]))
        return
    with _own_brokers() as urls:
        asyncio.run(_main(urls))


if __name__ == "__main__":
    main()
