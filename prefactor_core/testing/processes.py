"""Consumers and publishers in processes of their own, as tests see them."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Self


class Program:
    """A module run as a program, to be killed, frozen, woken and stopped; it speaks as ``consumer`` does."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._news = asyncio.Event()
        self.events: list[dict[str, Any]] = []
        """What it has said, in order."""
        self._listener = asyncio.get_running_loop().create_task(self._listen())

    @classmethod
    @asynccontextmanager
    async def running(cls, module: str, *arguments: str) -> AsyncIterator[Self]:
        """Yield a program; it is killed in the end if it runs still."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, *arguments, stdin=PIPE, stdout=PIPE
        )
        program = cls(process)
        try:
            yield program
        finally:
            if process.returncode is None:
                await program.kill()
            await program._listener
            if process.stdin is not None:
                process.stdin.close()

    def keys(self, event: str) -> list[str]:
        """Return the keys of the operations that it said this of, in order."""
        return [one["key"] for one in self.events if one["event"] == event]

    async def until(self, condition: Callable[[Self], object], within: float) -> None:
        """Wait until ``condition`` is true of what it has said."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while not condition(self) and not self.dead:
                    self._news.clear()
                    await self._news.wait()
        how = "when it ended" if self.dead else f"within {within:.0f} s"
        assert condition(self), f"not {how}; its last words were {self.events[-5:]}"

    @property
    def dead(self) -> bool:
        """Whether it has ended, and everything that it said is known."""
        return self._listener.done()

    async def died(self, within: float) -> bool:
        """Wait for its end, and return whether it was killed."""
        async with asyncio.timeout(within):
            return await self.process.wait() == -signal.SIGKILL

    async def kill(self) -> None:
        """End it without a chance to say anything to anybody."""
        self.process.kill()
        await self.process.wait()
        await self._listener

    def tell(self, word: str) -> None:
        """Give it a word on its standard input, such as ``go``."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n".encode())

    async def stop(self, within: float) -> dict[str, int]:
        """End it cleanly, and return its account."""
        self.tell("stop")
        async with asyncio.timeout(within):
            await self._listener
            await self.process.wait()
        assert self.events, "it ended without a word"
        account = dict(self.events[-1])
        assert account.pop("event") == "ended", self.events[-5:]
        return account

    async def _listen(self) -> None:
        assert self.process.stdout is not None
        try:
            async for line in self.process.stdout:
                self.events.append(json.loads(line))
                self._news.set()
        finally:
            self._news.set()


def worker(
    url: str,
    *,
    handle: int | None = None,
    die_on: Sequence[str] = (),
    reject: Sequence[str] = (),
    workers: int = 1,
) -> AbstractAsyncContextManager[Program]:
    """Run a consumer at ``url``.

    Args:
        url: Where it consumes.
        handle: How many operations it handles before it waits for ``go``. ``None`` handles all.
        die_on: Keys of operations that kill it.
        reject: Keys of operations that it dead-letters.
        workers: Operations that it handles at a time.
    """
    told = {"handle": handle, "die_on": die_on, "reject": reject, "workers": workers}
    return Program.running("prefactor_core.testing.consumer", url, json.dumps(told))
