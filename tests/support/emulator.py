"""The emulator, in a thread of the test run or as a child process, and what tests read from it."""

import argparse
import asyncio
import logging
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx

from prefactor_emulator.app import Emulator as EmulatorApp
from prefactor_emulator.http.accounts import Accounts
from prefactor_emulator.server import EmulatorServer, bind
from prefactor_emulator.storage.database import Database

_START_SECONDS = 60.0


class Emulator:
    """One emulator as a process; its database outlives it, so it can be killed and started again."""

    def __init__(self, database: Path, *options: str) -> None:
        self.database = database
        self._options = options
        self._process: asyncio.subprocess.Process | None = None
        self._port = 0
        self.url = ""

    async def start(self) -> None:
        """Start it; a second start takes the same port again."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "prefactor_emulator", "--port", str(self._port)),
            *("--db", str(self.database), *self._options),
            stdout=asyncio.subprocess.PIPE,
            env=dict(os.environ),
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(_START_SECONDS):
            line = (await self._process.stdout.readline()).decode()
        self._listens_at(line.split()[-1])

    async def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None

    async def effects(self) -> list[dict[str, Any]]:
        """Return the log of effects, from the first."""
        found: list[dict[str, Any]] = []
        async with httpx.AsyncClient(base_url=self.url, timeout=30, trust_env=False) as client:
            while True:
                after = found[-1]["seq"] if found else 0
                reply = await client.get("/emulator/effects", params={"after": after, "limit": 1000})
                page = reply.raise_for_status().json()["effects"]
                if not page:
                    return found
                found += page

    async def instance(self, instance_id: str) -> dict[str, Any]:
        """Return an instance with its spans."""
        async with httpx.AsyncClient(base_url=self.url, timeout=30, trust_env=False) as client:
            reply = await client.get(f"/emulator/instances/{instance_id}")
            found: dict[str, Any] = reply.raise_for_status().json()
            return found

    def _listens_at(self, url: str) -> None:
        self.url = url
        self._port = int(url.rsplit(":", 1)[1])


class _Listener(logging.Handler):
    """Keeps what an emulator's thread logs as it would write it to stderr."""

    def __init__(self, thread: str) -> None:
        super().__init__(logging.WARNING)
        self._thread = thread
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.threadName == self._thread:
            self.said.append(record.getMessage())


class _AbruptServer(EmulatorServer):
    """A server whose end breaks off its connections, as the end of a killed process does."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # What asyncio has accepted while its server closes would be left open, and reported by a later test.
        for server in self.servers:
            for listener in server.sockets:
                asyncio.get_running_loop().remove_reader(listener.fileno())
        await asyncio.sleep(0.01)
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await super().shutdown(sockets)


class EmulatorThread:
    """The emulator in a thread: as good as a process, and there at once, for tests that do not kill it.

    Args:
        options: As on its command line.
    """

    def __init__(self, *options: str) -> None:
        parser = argparse.ArgumentParser()
        parser.add_argument("--port", type=int, default=0)
        parser.add_argument("--db", default=":memory:")
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--no-dedup", dest="dedup", action="store_false")
        parser.add_argument("--strict-schemas", action="store_true")
        parser.add_argument("--strict-termination", action="store_true")
        for name in ("--token", "--account", "--deployment", "--fault", "--allow-host"):
            parser.add_argument(name, action="append", default=[])
        self._options = parser.parse_args(options)
        self._listener = bind("127.0.0.1", self._options.port)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._server: EmulatorServer | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"emulator at {self.url}", daemon=True)
        self._log = _Listener(self._thread.name)
        logging.getLogger().addHandler(self._log)
        self._thread.start()
        if not (self._ready.wait(_START_SECONDS) and self._server):
            self.end()
            raise AssertionError("the emulator did not start; its thread has said why")

    def end(self) -> list[str]:
        """End it at once, whatever it is doing, and return the warnings that it has logged."""
        if self._server is not None:
            self._server.force_exit = self._server.should_exit = True
        self._thread.join(_START_SECONDS)
        assert not self._thread.is_alive(), "the emulator does not end"
        logging.getLogger().removeHandler(self._log)
        return self._log.said

    def _run(self) -> None:
        options = self._options
        try:
            with self._listener, closing(Database(options.db)) as database:
                emulator = EmulatorApp(
                    database,
                    Accounts(options.token, options.account, options.deployment),
                    dedup=options.dedup,
                    strict_schemas=options.strict_schemas,
                    strict_termination=options.strict_termination,
                    hosts=options.allow_host,
                )
                emulator.faults.activate(options.fault, options.seed)
                self._server = _AbruptServer(emulator, self._ready.set)
                self._server.run(sockets=[self._listener])
        finally:
            self._ready.set()


def mistakes_of(logged: list[str]) -> list[str]:
    """Return what an emulator has logged, but for what it says of spans that do not fit their schemas."""
    return [line for line in logged if "does not fit what its agent registered" not in line]


class _InThread(Emulator):
    """An emulator that ends as if killed, and starts again, but shares this process."""

    def __init__(self, database: Path, options: Sequence[str]) -> None:
        super().__init__(database, *options)
        self._thread: EmulatorThread | None = None

    async def start(self) -> None:
        options = ["--port", str(self._port), "--db", str(self.database), *self._options]
        self._thread = await asyncio.to_thread(EmulatorThread, *options)
        self._listens_at(self._thread.url)

    async def kill(self) -> None:
        if self._thread is not None:
            await asyncio.to_thread(self._thread.end)
            self._thread = None


@asynccontextmanager
async def running_emulator(folder: Path, *options: str) -> AsyncIterator[Emulator]:
    """Start an emulator in a thread, with a database in ``folder``, and end it."""
    async with _running(_InThread(folder / "emulator.db", options)) as emulator:
        yield emulator


@asynccontextmanager
async def emulator_process(folder: Path, *options: str) -> AsyncIterator[Emulator]:
    """Start an emulator as a process, with a database in ``folder``, and end it."""
    async with _running(Emulator(folder / "emulator.db", *options)) as emulator:
        yield emulator


@asynccontextmanager
async def _running(emulator: Emulator) -> AsyncIterator[Emulator]:
    await emulator.start()
    try:
        yield emulator
    finally:
        await emulator.kill()
