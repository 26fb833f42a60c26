"""The name server of Erlang nodes, a test's own."""

import os
import shutil
import socket
from pathlib import Path

from tests.support.brokers.process import ServerProcess
from tests.support.brokers.waiting import wait_until
from tests.support.ports import free_port

_START_SECONDS = 60.0


class Epmd:
    """One name server, on a port of its own.

    Left alone, the first Erlang node on a machine starts one that outlives it. This one ends with the test,
    and nodes that have other name servers never see each other.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._process = ServerProcess(folder / "epmd.log")

    def start(self) -> None:
        """Start it, unless it runs already."""
        if self._process.running:
            return
        program = shutil.which("epmd")
        if program is None:
            raise FileNotFoundError("epmd, a part of Erlang, is not installed")
        env = {name: value for name, value in os.environ.items() if not name.startswith("ERL_EPMD_")}
        self._process.start([program, "-port", str(self.port), "-address", "127.0.0.1"], env)
        try:
            wait_until(
                self._accepts,
                f"an epmd at port {self.port}",
                seconds=_START_SECONDS,
                pause=0.02,
                details=self._process.tail,
            )
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End it."""
        self._process.kill()

    def _accepts(self) -> bool:
        self._process.check()
        with socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
