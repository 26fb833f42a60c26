"""What a span costs the agent that records it: processor time and time by the clock inside the SDK's calls.

``python -m benchmarks.span_cost [--peers] [--threads] [--spans N]``: a span has a payload of 800 bytes and a
result of 400. Spans come in bursts of 20; what happens in the event loop between those, delivery above all,
is not measured. "memory" sends to a stand-in for the API in another process, "unavailable" to no API, and
"redis" and "amqp" publish to a broker, each under a prefix that is deleted afterwards. ``--threads`` also
records with the sync client, from 1 and from 8 threads at once, an instance each, in bursts of 400.
``--peers`` compares with OpenTelemetry's SDK, which is installed once into an environment of its own below
`.peers`.

Every run is a process of its own; alternated, five rounds, medians. "CPU" is the processor time of the
threads that record: the median of the bursts, and the mean of all spans.
"""

import argparse
import asyncio
import json
import math
import os
import socket
import statistics
import sys
import threading
from contextlib import nullcontext
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from benchmarks.brokers import fresh_prefix
from benchmarks.bursts import PAYLOAD, RESULT, THREAD_BURST, Cost, measure, measure_threads
from benchmarks.load import SCHEMAS, VERSION, client_for, config_for, new_instance
from benchmarks.stand_in import stand_in
from prefactor_core import CloseSummary
from prefactor_core.sync import PrefactorCoreClient as SyncClient
from tests.support.brokers.sources import RABBITMQ, REDIS
from tests.support.installing import python_with

_ROUNDS: Final = 5
_THREADS: Final = 8
_UNAVAILABLE: Final = "http://127.0.0.1:9"
_PEER: Final = "OpenTelemetry"
_PEER_VERSION: Final = "1.45.2"
_BROKERS: Final = (
    (REDIS, "redis://127.0.0.1:6379/0"),
    (RABBITMQ, "amqp://guest:guest@127.0.0.1:5672/"),
)


class Subject(NamedTuple):
    """What is measured: where spans go, and how many threads record them; 0 for an event loop."""

    target: str
    threads: int

    def __str__(self) -> str:
        return self.target + (f", {self.threads} thread{'s' * (self.threads > 1)}" if self.threads else "")


# -- one run, in a process of its own


async def _cost(url: str, spans: int) -> Cost:
    """Return what a span costs with a client of the API or the broker at ``url``."""
    client = client_for(url, **_room_for(spans))
    await client.initialize()
    instance = await new_instance(client)
    away = url == _UNAVAILABLE
    assert await client.flush(0.5 if away else 60) is not away

    async def record() -> None:
        async with instance.span("bench:step", payload=PAYLOAD) as span:
            await span.start()
            await span.complete(RESULT)

    cost = await measure(record, spans)
    await instance.finish()
    _check(await client.close(0.2 if away else 120), spans, 1, away=away)
    return cost


def _cost_in_threads(url: str, spans: int, threads: int) -> Cost:
    """Return the same for threads and the sync client."""
    client = SyncClient(config_for(url, **_room_for(spans)))
    client.initialize()
    described: dict[str, Any] = {"agent_version": VERSION, "agent_schema_version": SCHEMAS}
    instances = [client.create_agent_instance(**described) for _ in range(threads)]
    for instance in instances:
        instance.start()
    away = url == _UNAVAILABLE
    assert client.flush(0.5 if away else 60) is not away

    own = threading.local()
    unused = iter(instances)

    def record() -> None:
        if not hasattr(own, "instance"):
            own.instance = next(unused)
        with own.instance.span("bench:step", payload=PAYLOAD) as span:
            span.start()
            span.complete(RESULT)

    cost = measure_threads(record, spans, threads)
    for instance in instances:
        instance.finish()
    _check(client.close(0.2 if away else 120), spans, threads, away=away)
    return cost


def _room_for(spans: int) -> dict[str, int]:
    return {"buffer_operations": 4 * spans + 10_000, "buffer_bytes": 2**30}


def _check(summary: CloseSummary, spans: int, instances: int, *, away: bool) -> None:
    assert (summary.put, summary.dropped) == (2 * spans + 3 * instances, {}), summary
    assert summary.complete is not away, summary


# -- all of them


async def _run(subject: Subject, python: str, *arguments: str) -> Cost:
    """Run a process that measures a subject, and return what it found."""
    process = await asyncio.create_subprocess_exec(
        python, "-m", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    if process.returncode:
        sys.exit(f"{errors.decode()}\n{subject} could not be measured: see above")
    return Cost(**json.loads(output))


async def _measure(subject: Subject, url: str, spans: int) -> Cost:
    if subject.target == _PEER:
        return await _run(subject, url, "benchmarks.opentelemetry_spans", str(spans), str(subject.threads))
    async with nullcontext(url) if url.startswith("http") else fresh_prefix(url) as place:
        run = ("--run", place, str(subject.threads), "--spans", str(spans))
        return await _run(subject, sys.executable, "benchmarks.span_cost", *run)


def _brokers() -> dict[str, str]:
    """Return the URLs of the brokers that are there, and say which are not."""
    found: dict[str, str] = {}
    for broker, usual in _BROKERS:
        url = os.environ.get(broker.variable, usual)
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or urlsplit(usual).port
        try:
            socket.create_connection((host, port), 5).close()
        except OSError as error:
            print(
                f"no {broker.name} at {host}:{port} ({error}), so it is left out: "
                f"start one, or put the address of one into {broker.variable}"
            )
        else:
            found[parts.scheme] = url
    return found


def _print(costs: dict[Subject, list[Cost]]) -> None:
    def line(name: str, *columns: str) -> None:
        print(f"{name:<26}" + "".join(f"{column:>12}" for column in columns))

    compared = any(subject.target == _PEER for subject in costs)
    names = ("CPU us", "CPU mean us", "p50 us", "p99 us")
    line("", *names, *(("CPU", "CPU mean", "p50", "p99") if compared else ()))
    medians = {
        subject: Cost(*map(statistics.median, zip(*found, strict=True))) for subject, found in costs.items()
    }
    for subject, cost in medians.items():
        columns = [f"{value:.1f}" for value in cost]
        if compared:
            peer = medians[Subject(_PEER, subject.threads)]
            columns += [f"{own / other:.2f}x" for own, other in zip(cost, peer, strict=True)]
        line(str(subject), *columns)


async def _main(spans: int, *, threads: bool, peers: bool) -> None:
    async with stand_in(0) as api:
        urls = {"memory": api, "unavailable": _UNAVAILABLE, **_brokers()}
        if peers:
            name = f"opentelemetry-{_PEER_VERSION}"
            urls[_PEER] = str(python_with(name, f"opentelemetry-sdk=={_PEER_VERSION}"))
        counts = (0, 1, _THREADS) if threads else (0,)
        costs: dict[Subject, list[Cost]] = {Subject(name, count): [] for count in counts for name in urls}
        for _ in range(_ROUNDS):
            for subject, found in costs.items():
                found.append(await _measure(subject, urls[subject.target], spans))
    print(f"{spans:,} spans a run" + (f"; on the right, in multiples of {_PEER}'s" if peers else ""))
    _print(costs)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--spans", type=int, default=6_400, metavar="N", help="of each run, at least")
    parser.add_argument("--threads", action="store_true", help="record from several threads, too")
    parser.add_argument("--peers", action="store_true", help="compare with OpenTelemetry's SDK")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    share = THREAD_BURST * _THREADS
    spans = max(1, math.ceil(options.spans / share)) * share
    if options.run:
        url, threads = options.run[0], int(options.run[1])
        cost = _cost_in_threads(url, spans, threads) if threads else asyncio.run(_cost(url, spans))
        print(json.dumps(cost._asdict()))
        return
    asyncio.run(_main(spans, threads=options.threads, peers=options.peers))


if __name__ == "__main__":
    main()
