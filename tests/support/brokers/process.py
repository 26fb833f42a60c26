"""Servers as child processes: one, and several that belong together."""

import os
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.brokers.guard import GUARD
from tests.support.ports import free_port

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

    def check(self) -> None:
        """Raise an error with the end of its output if it has ended."""
        if not self.running:
            raise RuntimeError(f"the server has ended\n{self.tail()}")

    def spawn(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
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
        if self._child is None or not self.running:
            raise RuntimeError("only what is running can be frozen")
        self._signal(signal.SIGSTOP)
        if hasattr(os, "waitid"):  # on its way back from the call a thread of the server may still answer
            os.waitid(os.P_PID, self._child.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
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


class Server(ServerProcess, ABC):
    """A server of a test's own; its data outlives the process, so it can be killed and started again.

    Args:
        folder: Where it keeps everything; made if need be.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder / "server.log")
        self.folder = folder
        self.port = free_port()

    @property
    def up(self) -> bool:
        """Whether it can be expected to answer."""
        return self.running and not self.frozen

    @abstractmethod
    def launch(self) -> None:
        """Start its process, without waiting."""

    @abstractmethod
    def wait_ready(self, seconds: float = 180.0) -> None:  # a machine at work on other things takes a minute
        """Wait until it answers."""

    def start(self) -> None:
        """Start it and wait until it answers; a second start has the same port and data."""
        self.launch()
        try:
            self.wait_ready()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End it for good."""
        self.kill()

    def heal(self) -> None:
        """Let it go on, or start it again, whatever a test has done to it."""
        self.thaw()
        if self.running:
            self.wait_ready()
        else:
            self.start()


class Servers(ABC):
    """Servers that belong together, each of which can be killed and started again."""

    def __init__(self, *servers: Server) -> None:
        self._all = servers

    @abstractmethod
    def wait_settled(self, seconds: float = 180.0) -> None:
        """Wait until those that are up agree, and everything is in its place."""

    def start(self) -> None:
        """Start all of them, and wait until everything is in its place."""
        try:
            self._join()
            self.wait_settled()
        except BaseException:
            self.close()
            raise

    def kill(self) -> None:
        """End all of them as a crash would."""
        for server in self._all:
            server.kill()

    def close(self) -> None:
        """End all of them for good."""
        for server in self._all:
            server.close()

    def restart(self, server: Server) -> None:
        """Start a killed one again and wait until it has its place."""
        server.start()
        self.wait_settled()

    def heal(self) -> None:
        """Let all of them go on or start them again, and wait until everything is in its place."""
        for server in self._all:
            server.heal()
        self.wait_settled()

    def _join(self) -> None:
        for server in self._all:
            server.start()
