"""A `prefactor-emulator` as a child process that never outlives its use."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prefactor_worker.demo.children import Child, Children

_START_TIMEOUT: Final = 20.0
_STOP_TIMEOUT: Final = 10.0
_FIRST_LINE: Final = "prefactor-emulator listening on "


class EmulatorError(Exception):
    """The emulator did not start; the message is its own."""


@dataclass(frozen=True, slots=True)
class RunningEmulator:
    """An emulator that runs.

    Attributes:
        url: Where it listens.
        database: What it keeps; gone when it ends.
    """

    url: str
    database: Path


@contextlib.asynccontextmanager
async def running_emulator(port: int, *options: str) -> AsyncIterator[RunningEmulator]:
    """Run an emulator for the length of an ``async with``, which yields where it is.

    Args:
        port: Where it listens; 0 picks a free port.
        options: Further ones of its command line.

    Raises:
        EmulatorError: It did not start.
    """
    with tempfile.TemporaryDirectory(prefix="prefactor-demo-") as folder:
        database = Path(folder) / "emulator.db"
        arguments = ("-m", "prefactor_emulator", "--port", str(port), "--db", str(database), *options)
        async with Children(Path(folder)) as children:
            child = await children.start("emulator", arguments)
            yield RunningEmulator(await _url(child), database)


async def _url(child: Child) -> str:
    try:
        async with asyncio.timeout(_START_TIMEOUT):
            line = await child.line()
    except TimeoutError:
        raise EmulatorError(f"it did not say in {_START_TIMEOUT:.0f} s where it listens") from None
    if not line.startswith(_FIRST_LINE):
        await child.ended(_STOP_TIMEOUT)
        raise EmulatorError(child.last_words or line or "it ended without a word")
    return line.removeprefix(_FIRST_LINE)
