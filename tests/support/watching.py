"""What the tests of the fleet look at from outside: probes, metrics, memory and time, dead letters."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from prefactor_core.broker.dead_letters import DeadLetters, StoredDeadLetter
from tests.support.emulator import Emulator
from tests.support.fleet import Child, Fleet
from tests.support.ports import free_port
from tests.support.processes import status_field

FULL = os.environ.get("PREFACTOR_TEST_FULL") == "1"
"""Whether the tests run in the sizes that were promised, which takes minutes, and not in smaller ones."""

on_redis = pytest.mark.parametrize("transport_url", ["redis"], indirect=True)
"""For tests of the fleet in which the broker makes no difference."""
on_rabbitmq = pytest.mark.parametrize("transport_url", ["rabbitmq"], indirect=True)


class Probed:
    """A worker with its port for metrics and probes."""

    def __init__(self, child: Child, port: int) -> None:
        self.child = child
        self._base = f"http://127.0.0.1:{port}"

    async def ask(self, path: str) -> tuple[int, str]:
        """Return status and text of a path; 0 while nobody listens there yet."""
        async with httpx.AsyncClient(base_url=self._base, timeout=60, trust_env=False) as client:
            try:
                reply = await client.get(path)
            except httpx.TransportError as error:
                return 0, type(error).__name__
        return reply.status_code, reply.text

    async def answers(self, path: str, status: int) -> bool:
        """Whether a path answers with a status."""
        return (await self.ask(path))[0] == status

    async def metric(self, name: str, **labels: str) -> float:
        """Return a metric, summed over all labels that are not given."""
        status, text = await self.ask("/metrics")
        assert status == 200, text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    async def metric_is(self, name: str, good: Callable[[float], bool]) -> bool:
        """Whether a metric is as it should be."""
        return good(await self.metric(name))

    @property
    def resident_mib(self) -> float:
        """The memory that it has now."""
        return resident_mib(self.child.process.pid)


async def probed_worker(fleet: Fleet, *options: str, **environment: str) -> Probed:
    """Start a worker whose probes and metrics can be asked."""
    port = free_port()
    child = await fleet.worker(
        "--metrics-host", "127.0.0.1", "--metrics-port", str(port), *options, **environment
    )
    return Probed(child, port)


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    return int(status_field(pid, "VmRSS")) / 1024


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def dead_letters(fleet: Fleet) -> list[StoredDeadLetter]:
    """Return all dead letters of the fleet's broker."""
    queue = fleet.queue()
    try:
        return [record async for record in DeadLetters(queue.broker).list()]
    finally:
        await queue.disconnect()


async def set_faults(emulator: Emulator, *faults: str, seed: int = 1) -> None:
    """Have the emulator misbehave from now on, in place of what it did before."""
    body: dict[str, Any] = {"faults": list(faults), "seed": seed}
    async with httpx.AsyncClient(base_url=emulator.url, timeout=60, trust_env=False) as client:
        (await client.post("/emulator/faults", json=body)).raise_for_status()


async def fault_hits(emulator: Emulator) -> list[int]:
    """Return how often each of the emulator's faults has struck."""
    async with httpx.AsyncClient(base_url=emulator.url, timeout=60, trust_env=False) as client:
        found: list[int] = (await client.get("/emulator/faults")).raise_for_status().json()["hits"]
        return found
