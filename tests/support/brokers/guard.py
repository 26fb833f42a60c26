"""A process that ends servers whose test run was killed before it could end them itself.

It hears of each server through a pipe that the test run holds, and of the test run's end by the pipe's. Run
as a program this module is that process.
"""

import atexit
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path


class Guard:
    """The guard of this test run; it starts with the first server."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def watch(self, pid: int) -> None:
        """Have a server ended, and its group, should this process end before ``forget``."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-S", __file__], stdin=subprocess.PIPE, start_new_session=True
            )
            atexit.register(self._end)
        self._tell(f"watch {pid}\n")

    def forget(self, pid: int) -> None:
        """Leave a server alone: it has ended."""
        self._tell(f"forget {pid}\n")

    def _tell(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()

    def _end(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait()


GUARD = Guard()


def born(pid: int) -> str:
    """Return when a process started: an id is given again, but not with that."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:  # no such process, or no such file system
        command = ["ps", "-o", "lstart=", "-p", str(pid)]
        with suppress(OSError):
            return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()
    return ""


def main() -> None:
    """Listen until the pipe ends, and end what is still watched."""
    watched: dict[int, str] = {}
    for line in sys.stdin:
        word, pid = line.split()
        if word == "watch":
            watched[int(pid)] = born(int(pid))
        else:
            watched.pop(int(pid), None)
    for server, start in watched.items():
        if start and born(server) == start:
            with suppress(ProcessLookupError):
                os.killpg(server, signal.SIGKILL)


if __name__ == "__main__":
    main()
