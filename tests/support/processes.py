"""What only Linux tells of processes: how orphans end, what they take, which signals they catch."""

import asyncio
import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_PR_SET_CHILD_SUBREAPER: Final = 36


@contextmanager
def taking_in_orphans() -> Iterator[None]:
    """Have descendants that lose their parent become children of this process."""
    _be_subreaper(1)
    try:
        yield
    finally:
        _be_subreaper(0)


async def exit_status(process: int, within: float) -> int:
    """Wait for the end of a process that is to become an orphan, and return its exit status."""
    async with asyncio.timeout(within):
        while True:
            with suppress(ChildProcessError):  # its own parent lives still
                ended, status = os.waitpid(process, os.WNOHANG)  # noqa: ASYNC222 -- it only looks
                if ended:
                    return os.waitstatus_to_exitcode(status)
            await asyncio.sleep(0.05)


def catches(process: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    return bool(int(status_field(process, "SigCgt"), 16) >> (number - 1) & 1)


def status_field(process: int, name: str) -> str:
    """Return the first word of a field of a process's status, such as ``VmRSS`` (in KiB)."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return line.split()[1]
    raise AssertionError(f"process {process} has no {name}")


def _be_subreaper(on: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, on, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def complaints(errors: str) -> list[str]:
    """Return what an agent wrote to stderr, but for the notice of a ``close()`` that takes its time."""
    return [line for line in errors.splitlines() if not line.startswith("prefactor: closing waits for ")]
