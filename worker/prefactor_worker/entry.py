"""The command ``prefactor-worker``, even where its libraries are missing."""

import os
import signal
import sys


def main() -> None:
    """Run the command, or say which extra to install."""
    if sys.argv[1:2] == ["run"]:
        # What it imports takes a second, and a stop may come before the worker can see to it.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _end)
    from prefactor_core.utils import run_command  # noqa: PLC0415 -- that second begins here

    run_command("prefactor_worker.cli", "prefactor-worker", "worker")


def _end(number: int, frame: object) -> None:
    """End at once, and well: nothing was begun."""
    del number, frame
    os._exit(0)
