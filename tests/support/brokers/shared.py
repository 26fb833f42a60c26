"""The brokers that the tests of a run share: its controller starts each when it is first needed, and ends it.

The processes of a parallel run ask the controller through a socket: a line with the name of the broker, and a
line with its address. Whichever of them ends first, the servers stay until the run ends.
"""

import os
import shutil
import socket
import socketserver
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.support.brokers.containers import docker_answers, rabbitmq_container, redis_container
from tests.support.brokers.rabbitmq_server import RabbitServer, rabbitmq_program
from tests.support.brokers.redis_server import RedisServer
from tests.support.brokers.sources import RABBITMQ, REDIS, Broker, Decision, Source, decide_any, decide_own

_ANSWER_SECONDS = 180.0
_BROKERS: Final = {broker.name: broker for broker in (REDIS, RABBITMQ)}
_CONTAINERS: Final = {REDIS.name: redis_container, RABBITMQ.name: rabbitmq_container}
_SERVERS: Final[dict[str, type[RedisServer] | type[RabbitServer]]] = {
    REDIS.name: RedisServer,
    RABBITMQ.name: RabbitServer,
}


def _has_redis() -> bool:
    return all(shutil.which(name) for name in ("redis-server", "redis-cli"))


def _has_rabbitmq() -> bool:
    return bool(
        rabbitmq_program("rabbitmq-server") and rabbitmq_program("rabbitmqctl") and shutil.which("epmd")
    )


_PROGRAMS: Final[dict[str, Callable[[], bool]]] = {REDIS.name: _has_redis, RABBITMQ.name: _has_rabbitmq}


def find_own(broker: Broker) -> Decision:
    """Decide where a broker comes from that a test may kill."""
    return decide_own(broker, os.environ, _PROGRAMS[broker.name])


class SharedBrokers:
    """The brokers of a run, in the process that started it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owned = ExitStack()
        self._found: dict[str, Decision] = {}
        self.address = ""
        """The socket at which ``ask`` finds them; nothing until ``serve``."""

    def find(self, broker: Broker) -> Decision:
        """Return the address of a broker, which is started if need be, or why there is none."""
        with self._lock:
            if broker.name not in self._found:
                self._found[broker.name] = self._start(broker)
            return self._found[broker.name]

    def serve(self) -> None:
        """Answer the other processes of the run."""
        folder = self._owned.enter_context(tempfile.TemporaryDirectory(prefix="brokers-"))
        self.address = str(Path(folder) / "desk")
        brokers = self

        class Answer(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                found = brokers.find(_BROKERS[self.rfile.readline().decode().strip()])
                self.wfile.write(f"{found.source.name} {found.text}\n".encode())

        server = socketserver.ThreadingUnixStreamServer(self.address, Answer)
        server.daemon_threads = True
        self._owned.callback(server.server_close)
        self._owned.callback(server.shutdown)
        threading.Thread(target=server.serve_forever, name="shared-brokers", daemon=True).start()

    def close(self) -> None:
        """End what was started."""
        self._owned.close()

    def _start(self, broker: Broker) -> Decision:
        found = decide_any(broker, os.environ, docker_answers, _PROGRAMS[broker.name])
        if found.source is Source.DOCKER:
            return Decision(found.source, self._owned.enter_context(_CONTAINERS[broker.name]()))
        if found.source is Source.PROGRAMS:
            folder = self._owned.enter_context(tempfile.TemporaryDirectory(prefix=f"{broker.name}-"))
            server = _SERVERS[broker.name](Path(folder))
            self._owned.callback(server.close)
            server.start()
            return Decision(found.source, server.url)
        return found


SHARED: Final = pytest.StashKey[SharedBrokers]()
"""Where the controller of the run keeps the brokers that its tests share."""


def ask(address: str, broker: Broker) -> Decision:
    """Return what the controller of the run has found, from another process of it."""
    with socket.socket(socket.AF_UNIX) as desk:
        desk.settimeout(_ANSWER_SECONDS)
        desk.connect(address)
        desk.sendall(f"{broker.name}\n".encode())
        source, _, text = desk.makefile().readline().rstrip("\n").partition(" ")
    if not source:
        raise RuntimeError(f"the controller of the run could not start a {broker.name}; it has said why")
    return Decision(Source[source], text)
