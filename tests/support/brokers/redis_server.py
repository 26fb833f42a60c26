"""A Redis of a test's own."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.brokers.process import ServerProcess
from tests.support.brokers.waiting import wait_until
from tests.support.ports import free_port

_START_SECONDS = 60.0
_ANSWER_SECONDS = 5.0


def redis_command(host: str, port: int, *words: str) -> Any:
    """Send one command over a connection of its own and return the reply."""
    client = redis.Redis(
        host,
        port,
        decode_responses=True,
        socket_timeout=_ANSWER_SECONDS,
        socket_connect_timeout=_ANSWER_SECONDS,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
    )
    with client:
        return client.execute_command(*words)  # type: ignore[no-untyped-call]


def wait_for_redis(host: str, port: int, *, seconds: float, process: ServerProcess | None = None) -> None:
    """Wait until a Redis has loaded its data and answers."""

    def answers() -> bool:
        if process is not None:
            process.check()
        try:
            return bool(redis_command(host, port, "PING"))
        except redis.AuthenticationError:
            return True  # it wants a password: that is an answer

    wait_until(
        answers,
        f"a Redis that answers at {host}:{port}",
        seconds=seconds,
        errors=(redis.RedisError, OSError),
        pause=0.02,
        details=str if process is None else process.tail,
    )


class RedisServer:
    """One Redis; its data outlives the process, so it can be killed and started again on its port.

    Every write is on disk before it is acknowledged, and nothing is ever evicted.

    Args:
        folder: Where it keeps everything; made if need be.
        options: Lines for its configuration, such as ``maxmemory 10mb``. They win over the defaults here.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self._options = options
        self._configured = False
        self._process = ServerProcess(folder / "server.log")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def running(self) -> bool:
        """Whether its process lives; a frozen one does."""
        return self._process.running

    @property
    def up(self) -> bool:
        """Whether it can be expected to answer."""
        return self._process.running and not self._process.frozen

    def start(self) -> None:
        """Start it and wait until it answers; a second start has the same port and data."""
        self.launch()
        try:
            wait_for_redis("127.0.0.1", self.port, seconds=_START_SECONDS, process=self._process)
        except BaseException:
            self.close()
            raise

    def launch(self) -> None:
        """Start its process, without waiting."""
        program = shutil.which("redis-server")
        if program is None:
            raise FileNotFoundError("redis-server is not installed")
        config = self.folder / "redis.conf"
        if not self._configured:  # sentinels rewrite this file, and what they wrote must survive a restart
            config.write_text("\n".join([*self._defaults(), *self._options]) + "\n")
            self._configured = True
        self._process.start([program, str(config), *self._arguments()])

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()

    def stop(self) -> None:
        """End it as an operator would."""
        self._process.stop()

    def close(self) -> None:
        """End it for good."""
        self.kill()

    def freeze(self) -> None:
        """Stop it where it is: connections stay, and nothing answers."""
        self._process.freeze()

    def thaw(self) -> None:
        """Let it go on."""
        self._process.thaw()

    def command(self, *words: str) -> Any:
        """Send one command, such as ``command("CONFIG", "SET", "maxmemory", "1")``, and return the reply."""
        return redis_command("127.0.0.1", self.port, *words)

    def heal(self) -> None:
        """Let it go on, or start it again, whatever a test has done to it."""
        self.thaw()
        if not self.running:
            self.start()

    def _defaults(self) -> list[str]:
        return [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self.folder}",
            'save ""',
            "appendonly yes",
            "appendfsync always",
            "maxmemory-policy noeviction",
        ]

    def _arguments(self) -> list[str]:
        return []


@asynccontextmanager
async def running_redis(folder: Path, *options: str) -> AsyncIterator[RedisServer]:
    """Start a Redis with its data in ``folder``, and end it."""
    server = RedisServer(folder, *options)
    await asyncio.to_thread(server.start)
    try:
        yield server
    finally:
        server.close()
