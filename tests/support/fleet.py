"""Agents, workers and an emulator as processes, and the three figures that have to be 0."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefactor_core import PrefactorCoreConfig
from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.plugins import create_queue
from prefactor_emulator.verify import compare as verify
from prefactor_emulator.verify.files import read_effects, read_puts
from tests.support.emulator import Emulator, emulator_process

TOKEN = "fleet-token"


@dataclass(frozen=True)
class Figures:
    """What the checker found."""

    puts: int
    lost: int
    doubled: int
    out_of_order: int
    unexpected: int


class Child:
    """A process of this project's, started by a test; its stderr is kept in a file."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        """What it has written to stderr."""
        return self._log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self.process.returncode is None:
            # Not by the process object, which would look after the child itself before it sends.
            os.kill(self.process.pid, number)

    async def ended(self, within: float) -> int:
        """Wait for its end and return its exit status."""
        async with asyncio.timeout(within):
            return await self.process.wait()

    async def kill(self) -> None:
        """End it as a crash would."""
        self.signal(signal.SIGKILL)
        await self.process.wait()

    async def line(self, within: float = 180.0) -> str:
        """Return its next line of output."""
        assert self.process.stdout is not None
        async with asyncio.timeout(within):
            return (await self.process.stdout.readline()).decode().strip()


class Fleet:
    """Everything around one broker URL."""

    def __init__(self, url: str, folder: Path, emulator: Emulator) -> None:
        self.url = url
        self.folder = folder
        self.emulator = emulator
        self._children: list[Child] = []
        self._puts: list[Path] = []

    async def agent(self, *options: str, url: str | None = None) -> Child:
        """Start an agent that publishes; see ``agent_program`` for its options. It has no token."""
        puts = self.folder / f"puts-{len(self._puts)}.jsonl"
        self._puts.append(puts)
        child = await self._start("-m", "tests.support.agent_program", url or self.url, str(puts), *options)
        assert await child.line() == "ready", child.log
        return child

    async def report(self, agent: Child, within: float = 180.0) -> dict[str, Any]:
        """Wait for an agent's end and return what it says of itself."""
        line = await agent.line(within)
        assert await agent.ended(60) == 0, agent.log
        found: dict[str, Any] = json.loads(line)
        return found

    async def worker(self, *options: str, **environment: str) -> Child:
        """Start a worker."""
        return await self._start(
            *("-m", "prefactor_worker", "run", "--transport", self.url, "--api-url", self.emulator.url),
            *("--metrics-port", "0", *options),
            environment={"PREFACTOR_API_TOKEN": TOKEN, **environment},
        )

    async def drain(self, within: float = 180.0, *options: str) -> Child:
        """Run one worker until nothing is left, and return it."""
        worker = await self.worker("--drain", *options)
        assert await worker.ended(within) == 0, worker.log
        return worker

    def figures(self) -> Figures:
        """Hold the emulator's log against what all agents put."""
        puts = [put for path in self._puts for put in read_puts(str(path))]
        found = verify.compare(puts, read_effects(str(self.emulator.database)))
        return Figures(found.puts, found.lost, found.doubled, found.out_of_order, found.unexpected)

    def puts(self) -> int:
        """Return how many operations the agents have put, as far as they have written it down."""
        return sum(path.read_bytes().count(b"\n") for path in self._puts if path.exists())

    async def effects(self) -> int:
        """Return how many effects there are."""
        return await asyncio.to_thread(lambda: sum(1 for _ in read_effects(str(self.emulator.database))))

    async def effects_are(self, number: int) -> bool:
        """Whether so many operations have taken effect."""
        return await self.effects() >= number

    def queue(self, **settings: Any) -> BrokerQueue:
        """Return a queue of this process's own at the same URL; the caller disconnects it."""
        queue = create_queue(self.url, PrefactorCoreConfig(transport_url=self.url, **settings))
        assert isinstance(queue, BrokerQueue)
        return queue

    async def close(self) -> None:
        """End all that still runs."""
        for child in self._children:
            child.signal(signal.SIGCONT)
            await child.kill()

    async def _start(self, *arguments: str, environment: dict[str, str] | None = None) -> Child:
        log = self.folder / f"child-{len(self._children)}.log"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFACTOR_")}
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env={**clean, **(environment or {})},
            )
        child = Child(process, log)
        self._children.append(child)
        return child


@asynccontextmanager
async def running_fleet(url: str, folder: Path, *emulator_options: str) -> AsyncIterator[Fleet]:
    """Start an emulator, and end it and everything that was started round it."""
    async with emulator_process(folder, *emulator_options) as emulator:
        fleet = Fleet(url, folder, emulator)
        try:
            yield fleet
        finally:
            await fleet.close()


async def until(condition: Callable[[], Any], within: float = 180.0, message: str = "") -> None:
    """Wait for a condition (or a coroutine function's result) to be true."""
    deadline = asyncio.get_running_loop().time() + within
    while True:
        result = condition()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return
        assert asyncio.get_running_loop().time() < deadline, message or f"not true within {within} s"
        await asyncio.sleep(0.05)
