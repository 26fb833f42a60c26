"""A server as a child process."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.brokers.guard import GUARD

_TAIL = 3_000


class ServerProcess:
    """A child process in a group of its own, with its output in a file; it can be started again.

    Signals go to the group, and only while the child is not yet reaped: until then its id cannot be anybody
    else's. Should the test run end without ending it, its guard does.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._child: subprocess.Popen[bytes] | None = None
        self.frozen = False

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended; a frozen one is running."""
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int:
        """The process id; 0 while it is not running."""
        return self._child.pid if self._child is not None and self.running else 0

    def check(self) -> None:
        """Raise an error with the end of its output if it has ended."""
        if not self.running:
            raise RuntimeError(f"the server has ended\n{self.tail()}")

    def start(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        """Start ``command``; its output is appended to the log."""
        if self.running:
            raise RuntimeError(f"{command[0]} is running already")
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,  # an interrupt at the keyboard is for the test run, which ends it
            )
        self.frozen = False
        GUARD.watch(self._child.pid)

    def kill(self) -> None:
        """End it as a crash would; nothing happens if it is not running."""
        self._signal(signal.SIGKILL)
        self._reap(None)

    def stop(self, seconds: float = 15.0) -> None:
        """Ask it to end, and kill it when it does not in that time."""
        self.thaw()
        self._signal(signal.SIGTERM)
        try:
            self._reap(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def freeze(self) -> None:
        """Stop it where it is: connections stay, and nothing answers."""
        if not self.running:
            raise RuntimeError("only what is running can be frozen")
        self._signal(signal.SIGSTOP)
        if hasattr(os, "waitid"):  # on its way back from the call a thread of the server may still answer
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        self.frozen = True

    def thaw(self) -> None:
        """Let it go on; nothing happens if it is not frozen."""
        if self.frozen:
            self._signal(signal.SIGCONT)
            self.frozen = False

    def tail(self) -> str:
        """Return the end of its output, for an error."""
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return f"{self._log}: ...\n{text[-_TAIL:]}"

    def _signal(self, number: signal.Signals) -> None:
        if self._child is not None and self.running:
            os.killpg(self._child.pid, number)

    def _reap(self, seconds: float | None) -> None:
        if self._child is not None:
            self._child.wait(seconds)
            GUARD.forget(self._child.pid)
            self._child = None
        self.frozen = False
