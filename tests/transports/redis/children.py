"""Owners in processes of their own."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

ROOT = Path(__file__).parents[3]


class Child:
    """A ``worker_process`` that runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def says(self, word: str) -> bool:
        """Wait for a word, and return what comes with it: whether the operation may be handled."""
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            said, allowed = json.loads(await self.process.stdout.readline())
        assert said == word
        return bool(allowed)

    async def goes_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        await self.process.stdin.drain()

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def child(url: str) -> AsyncIterator[Child]:
    """Start an owner of partition 0 at a URL, and kill it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.transports.redis.worker_process", url),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    one = Child(process)
    try:
        yield one
    finally:
        await one.kill()
