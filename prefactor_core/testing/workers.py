"""Consumers in processes of their own, as tests see them."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self


class Worker:
    """A process that consumes, to be killed, frozen, woken and stopped.

    Args:
        process: The process.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._news = asyncio.Event()
        self.events: list[dict[str, Any]] = []
        """What it has said, in order."""
        self._listener = asyncio.get_running_loop().create_task(self._listen())

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        url: str,
        *,
        handle: int | None = None,
        die_on: Sequence[str] = (),
        reject: Sequence[str] = (),
        workers: int = 1,
    ) -> AsyncIterator[Self]:
        """Yield a worker at ``url``; it is killed in the end if it runs still.

        Args:
            url: Where it consumes.
            handle: How many operations it handles before it waits for ``go``. ``None`` handles all.
            die_on: Keys of operations that kill it.
            reject: Keys of operations that it dead-letters.
            workers: Operations that it handles at a time.
        """
        arguments = [url, "--workers", str(workers)]
        arguments += [] if handle is None else ["--handle", str(handle)]
        for option, keys in (("--die-on", die_on), ("--reject", reject)):
            for key in keys:
                arguments += [option, key]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "prefactor_core.testing.consumer", *arguments, stdin=PIPE, stdout=PIPE
        )
        worker = cls(process)
        try:
            yield worker
        finally:
            await worker._end()

    def keys(self, event: str) -> list[str]:
        """Return the keys of the operations that it said this of, in order."""
        return [one["key"] for one in self.events if one["event"] == event]

    async def until(self, condition: Callable[[Self], object], within: float) -> None:
        """Wait until ``condition`` is true of what it has said."""
        try:
            async with asyncio.timeout(within):
                while not condition(self):
                    assert not self._listener.done(), f"it ended after {self.events[-5:]}"
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(
                f"not within {within:.0f} s; its last words were {self.events[-5:]}"
            ) from None

    @property
    def dead(self) -> bool:
        """Whether it has ended, and everything that it said is known."""
        return self._listener.done()

    async def died(self, within: float) -> bool:
        """Wait for its end, and return whether it was killed."""
        async with asyncio.timeout(within):
            return await self._process.wait() == -signal.SIGKILL

    async def kill(self) -> None:
        """End it without a chance to say anything to anybody."""
        self._process.kill()
        await self._process.wait()
        await self._listener

    def freeze(self) -> None:
        """Stop it where it is."""
        self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def go(self) -> None:
        """Let it handle what it waits with, and everything that follows."""
        self._tell(b"go\n")

    async def stop(self, within: float) -> dict[str, int]:
        """End it cleanly, and return its account."""
        self._tell(b"stop\n")
        async with asyncio.timeout(within):
            await self._listener
            await self._process.wait()
        assert self.events, "it ended without a word"
        account = dict(self.events[-1])
        assert account.pop("event") == "ended", self.events[-5:]
        return account

    # -- inside

    def _tell(self, word: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word)

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        try:
            async for line in self._process.stdout:
                self.events.append(json.loads(line))
                self._news.set()
        finally:
            self._news.set()

    async def _end(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        await self._listener
        if self._process.stdin is not None:
            self._process.stdin.close()
