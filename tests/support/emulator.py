"""The emulator as a child process, and what tests read from it."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

_START_SECONDS = 20.0


class Emulator:
    """One emulator; its database outlives the process, so it can be killed and started again."""

    def __init__(self, database: Path, *options: str) -> None:
        self.database = database
        self._options = options
        self._process: asyncio.subprocess.Process | None = None
        self._port = 0
        self.url = ""

    async def start(self) -> None:
        """Start it; a second start takes the same port again."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "prefactor_emulator",
            "--port",
            str(self._port),
            "--db",
            str(self.database),
            *self._options,
            stdout=asyncio.subprocess.PIPE,
            env=dict(os.environ),
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(_START_SECONDS):
            line = (await self._process.stdout.readline()).decode()
        self.url = line.split()[-1]
        self._port = int(self.url.rsplit(":", 1)[1])

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


@asynccontextmanager
async def running_emulator(folder: Path, *options: str) -> AsyncIterator[Emulator]:
    """Start an emulator with a database in ``folder``, and end it."""
    emulator = Emulator(folder / "emulator.db", *options)
    await emulator.start()
    try:
        yield emulator
    finally:
        await emulator.kill()
