"""One worker and a long backlog: whether its memory stays bounded, and whether it ends as fast as it began.

``python -m benchmarks.backlog redis|rabbitmq [OPERATIONS]``: by default 1,000,000 operations of 1 KB, of
2,000 instances of which 100 are mixed at any time, published beforehand; a broker of this run's own; the API
is a stand-in that answers at once. Every second the worker's metrics, memory and processor time are read.

The first and the last tenth are left out, for the start and for partitions that end before others. Of the
rest, the first and the last third are compared, by the medians of their windows of so many operations: by
the clock, and by the worker's own processor time, which does not depend on what else the machine does.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import httpx

from benchmarks.stand_in import stand_in
from prefactor_core import Operation, OperationType, PrefactorCoreConfig
from prefactor_core.broker.envelope import Envelope, encode, partition_of
from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.plugins import create_queue
from tests.support.brokers.rabbitmq_server import RabbitServer
from tests.support.brokers.redis_server import RedisServer
from tests.support.ports import free_port

_INSTANCE_OPERATIONS: Final = 500
_MIXED: Final = 100
_BATCH: Final = 500
_PARTITIONS: Final = 16
_TEXT: Final = {"text": "what was said before " * 38}  # with its ids and key an operation of 1 KB
_WINDOWS: Final = 60
_LARGEST_MIB: Final = 200
_DEVIATION: Final = 0.1


class Sample(NamedTuple):
    """What was read at one moment."""

    at: float
    settled: int
    cpu: float
    mib: float


def _operations(number: int) -> Iterator[Envelope]:
    """Yield operations of instances, a hundred of which are mixed."""
    now = datetime.now(UTC)
    for count in range(number):
        group, turn = divmod(count, _MIXED * _INSTANCE_OPERATIONS)
        instance = f"instance-{group * _MIXED + turn % _MIXED:06}"
        operation = Operation(
            OperationType.CREATE_SPAN,
            {
                "instance_id": instance,
                "span_id": f"span-{count:016}",
                "schema_name": "bench:step",
                "status": "active",
                "payload": _TEXT,
            },
            now,
            f"span-{count:016}:create",
        )
        yield Envelope(f"bench-{count}", turn // _MIXED + 1, operation)


async def _publish(queue: BrokerQueue, number: int) -> None:
    end = queue.broker.publishing()
    partitions = await end.partitions()
    batches: defaultdict[int, list[bytes]] = defaultdict(list)
    for envelope in _operations(number):
        partition = partition_of(envelope.operation.instance_id or "", partitions)
        batch = batches[partition]
        batch.append(encode(envelope))
        if len(batch) == _BATCH:
            await end.publish(partition, batch)
            batches[partition] = []
    for partition, batch in batches.items():
        if batch:
            await end.publish(partition, batch)
    await end.disconnect()


class _Worker:
    """The worker under test, and what is read from it."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self._http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False)

    async def sample(self) -> Sample | None:
        """Read everything; ``None`` until it answers."""
        folder = Path(f"/proc/{self.process.pid}")
        try:
            text = (await self._http.get("/metrics")).text
        except httpx.TransportError:
            return None
        settled = sum(
            float(line.split()[-1])
            for line in text.splitlines()
            if line.startswith("prefactor_operations_settled_total{")
        )
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        status = (folder / "status").read_text().splitlines()
        (resident,) = (int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS:"))
        return Sample(time.perf_counter(), int(settled), cpu, resident)

    async def drained(self, number: int) -> list[Sample]:
        """Read until everything is settled."""
        samples: list[Sample] = []
        while not samples or samples[-1].settled < number:
            assert self.process.returncode is None, "the worker has ended"
            sample = await self.sample()
            if sample is not None:
                samples.append(sample)
                if len(samples) % 10 == 0:
                    print(f"{sample.settled:>10,} settled  {sample.mib:6.1f} MiB", flush=True)
            await asyncio.sleep(min(1.0, number / 200_000))
        return samples

    async def end(self) -> None:
        """Stop it."""
        self.process.terminate()
        await self.process.wait()
        await self._http.aclose()


async def _start_worker(url: str, api: str, folder: str) -> _Worker:
    port = free_port()
    with Path(folder, "worker.log").open("wb") as log:  # noqa: ASYNC230 -- the child writes it
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "prefactor_worker", "run", "--transport", url, "--api-url", api),
            *("--metrics-host", "127.0.0.1", "--metrics-port", str(port)),
            stderr=log,
            env={**os.environ, "PREFACTOR_API_TOKEN": "benchmark"},
        )
    return _Worker(process, port)


def _rates(samples: Sequence[Sample], number: int) -> tuple[list[float], list[float]]:
    """Return operations a second of each window, by the clock and by the worker's processor time."""
    by_clock: list[float] = []
    by_cpu: list[float] = []
    middle = [sample for sample in samples if number * 0.1 <= sample.settled <= number * 0.9]
    before = middle[0]
    for sample in middle[1:]:
        done = sample.settled - before.settled
        if done >= number * 0.8 / _WINDOWS:
            by_clock.append(done / (sample.at - before.at))
            by_cpu.append(done / max(0.01, sample.cpu - before.cpu))
            before = sample
    return by_clock, by_cpu


def _report(name: str, rates: Sequence[float]) -> float:
    third = len(rates) // 3
    first, last = statistics.median(rates[:third]), statistics.median(rates[-third:])
    change = last / first - 1
    print(
        f"{name}: {first:,.0f} operations/s at the start, {last:,.0f} at the end: {change:+.1%} "
        f"(windows: {min(rates):,.0f} to {max(rates):,.0f})"
    )
    return change


@contextmanager
def _broker(kind: str, folder: str) -> Iterator[str]:
    server = (
        RedisServer(Path(folder, "redis"), "appendfsync everysec")
        if kind == "redis"
        else RabbitServer(Path(folder, "rabbitmq"))
    )
    server.start()
    try:
        yield f"{server.url}?prefix=backlog&partitions={_PARTITIONS}"
    finally:
        server.close()


async def _main(kind: str, number: int) -> bool:
    with tempfile.TemporaryDirectory() as folder, _broker(kind, folder) as url:
        queue = create_queue(url, PrefactorCoreConfig(transport_url=url))
        assert isinstance(queue, BrokerQueue)
        size = len(encode(next(_operations(1))))
        begin = time.perf_counter()
        await _publish(queue, number)
        seconds = time.perf_counter() - begin
        print(f"{number:,} operations of {size} bytes were published in {seconds:.0f} s", flush=True)
        async with stand_in(0) as api:
            worker = await _start_worker(url, api, folder)
            try:
                samples = await worker.drained(number)
            finally:
                await worker.end()
        await queue.disconnect()
    first = next(sample for sample in samples if sample.settled)
    whole = samples[-1].settled / (samples[-1].at - first.at)
    most = max(sample.mib for sample in samples)
    print(f"{kind}: {whole:,.0f} operations/s over all; resident memory at most {most:.1f} MiB")
    by_clock, by_cpu = _rates(samples, number)
    changes = _report("by the clock", by_clock), _report("by processor time", by_cpu)
    return most < _LARGEST_MIB and min(map(abs, changes)) < _DEVIATION


if __name__ == "__main__":
    good = asyncio.run(_main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000))
    print("as promised" if good else "NOT as promised")
    sys.exit(0 if good else 1)
