"""Child processes that never outlive their use."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_STOP_TIMEOUT: Final = 10.0


class Child:
    """A Python process of this project's; what it writes to stderr is kept in a file.

    Args:
        name: What messages call it.
        process: The process.
        log: The file.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status; ``None`` while it runs."""
        return self._process.returncode

    @property
    def ending(self) -> str:
        """How it has ended, and what it said last."""
        if self.status is None:
            return f"{self.name} runs: {self.last_words}"
        if self.status < 0:
            return f"{self.name} was ended by {signal.Signals(-self.status).name}"
        return f"{self.name} ended with status {self.status}: {self.last_words}"

    @property
    def last_words(self) -> str:
        """The last line that it has written to stderr."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""

    async def line(self) -> str:
        """Return its next line of output; empty once there is none any more."""
        if self._process.stdout is None:
            raise RuntimeError("its output is a pipe")
        return (await self._process.stdout.readline()).decode(errors="replace").strip()

    async def output(self) -> str:
        """Return all the rest of its output, once it has closed it."""
        if self._process.stdout is None:
            raise RuntimeError("its output is a pipe")
        return (await self._process.stdout.read()).decode(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self._process.returncode is None:
            # Not by the process object: it would first look itself whether the child has ended, and take its
            # exit status away from the event loop, which waits for it.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    async def ended(self, within: float) -> int | None:
        """Wait for its end, and return its exit status; ``None`` if it has not come in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                return await self._process.wait()
        return None

    async def kill(self) -> None:
        """End it as a crash would."""
        self.signal(signal.SIGKILL)
        await self._process.wait()


class Children:
    """Starts processes, and ends all of them at the end of an ``async with``.

    Args:
        folder: Takes their logs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._children: list[Child] = []

    async def start(
        self, name: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> Child:
        """Start one.

        Args:
            name: What messages call it; no other has the same.
            arguments: For the Python interpreter.
            environment: Its variables; by default this process's.
        """
        log = self._folder / f"{name.replace(' ', '-')}.log"
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=environment,
                # A Ctrl-C in the terminal is for this process, which then ends its children in their order.
                start_new_session=True,
            )
        child = Child(name, process, log)
        self._children.append(child)
        return child

    async def __aenter__(self) -> Self:
        """Return it."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End those that still run: cleanly, or after ten seconds without it."""
        try:
            for child in self._children:
                child.signal(signal.SIGTERM)
            async with asyncio.timeout(_STOP_TIMEOUT):
                for child in self._children:
                    await child.ended(_STOP_TIMEOUT)
        except (TimeoutError, asyncio.CancelledError) as reason:
            for child in self._children:
                child.signal(signal.SIGKILL)
            if isinstance(reason, asyncio.CancelledError):
                raise
        for child in self._children:
            await child.kill()
