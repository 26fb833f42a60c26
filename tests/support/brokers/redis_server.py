"""A Redis of a test's own."""

import shutil
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.brokers.process import Server
from tests.support.brokers.waiting import wait_until

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


def wait_for_redis(host: str, port: int, *, seconds: float, process: Server | None = None) -> None:
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


class RedisServer(Server):
    """One Redis; its data outlives the process, so it can be killed and started again on its port.

    Every write is on disk before it is acknowledged, and nothing is ever evicted.

    Args:
        folder: Where it keeps everything; made if need be.
        options: Lines for its configuration, such as ``maxmemory 10mb``. They win over the defaults here.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder)
        self._options = options
        self._configured = False

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def launch(self) -> None:
        """Start its process, without waiting."""
        program = shutil.which("redis-server")
        if program is None:
            raise FileNotFoundError("redis-server is not installed")
        config = self.folder / "redis.conf"
        if not self._configured:  # sentinels rewrite this file, and what they wrote must survive a restart
            config.write_text("\n".join([*self._defaults(), *self._options]) + "\n")
            self._configured = True
        self.spawn([program, str(config), *self._arguments()])

    def wait_ready(self, seconds: float = 180.0) -> None:
        """Wait until it has loaded its data and answers."""
        wait_for_redis("127.0.0.1", self.port, seconds=seconds, process=self)

    def command(self, *words: str) -> Any:
        """Send one command, such as ``command("CONFIG", "SET", "maxmemory", "1")``, and return the reply."""
        return redis_command("127.0.0.1", self.port, *words)

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
