"""The name server of Erlang nodes, a test's own."""

import os
import shutil
import socket

from tests.support.brokers.process import Server
from tests.support.brokers.waiting import wait_until


class Epmd(Server):
    """One name server, on a port of its own.

    Left alone, the first Erlang node on a machine starts one that outlives it. This one ends with the test,
    and nodes that have other name servers never see each other.
    """

    def launch(self) -> None:
        """Start it, unless it runs already."""
        if self.running:
            return
        program = shutil.which("epmd")
        if program is None:
            raise FileNotFoundError("epmd, a part of Erlang, is not installed")
        env = {name: value for name, value in os.environ.items() if not name.startswith("ERL_EPMD_")}
        self.spawn([program, "-port", str(self.port), "-address", "127.0.0.1"], env)

    def wait_ready(self, seconds: float = 180.0) -> None:
        """Wait until it accepts connections."""
        wait_until(
            self._accepts, f"an epmd at port {self.port}", seconds=seconds, pause=0.02, details=self.tail
        )

    def _accepts(self) -> bool:
        self.check()
        with socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
