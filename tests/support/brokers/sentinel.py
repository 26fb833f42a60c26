"""A Redis with sentinels, a test's own: a master, a replica, and three that watch over them."""

from contextlib import suppress
from pathlib import Path

import redis

from tests.support.brokers.process import Servers
from tests.support.brokers.redis_server import RedisServer
from tests.support.brokers.waiting import wait_until

_NAME = "mymaster"
_SENTINELS = 3
_QUORUM = 2
_SETTLE_SECONDS = 120.0


class _Sentinel(RedisServer):
    def __init__(self, folder: Path, master: RedisServer) -> None:
        super().__init__(
            folder,
            f"sentinel monitor {_NAME} 127.0.0.1 {master.port} {_QUORUM}",
            f"sentinel down-after-milliseconds {_NAME} 1000",
            f"sentinel failover-timeout {_NAME} 3000",
            f"sentinel parallel-syncs {_NAME} 1",
        )

    def wait_ready(self, seconds: float = 180.0) -> None:
        super().wait_ready(seconds)
        # It looks at the others every 10 s and gives a master that came back 8 s before it demotes it.
        # Redis before 7.0 cannot be told otherwise, and is as slow as that.
        with suppress(redis.ResponseError):
            self.command("SENTINEL", "DEBUG", "info-period", "500", "publish-period", "500")

    def _defaults(self) -> list[str]:
        return [f"port {self.port}", "bind 127.0.0.1", f"dir {self.folder}"]

    def _arguments(self) -> list[str]:
        return ["--sentinel"]


class RedisSentinel(Servers):
    """A master and its replica, and three sentinels that put the replica in its place when it is unavailable.

    Args:
        folder: Where all of them keep everything.
        options: Lines for the configuration of the master and the replica.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        first = RedisServer(folder / "server-0", "repl-diskless-sync-delay 0", *options)
        second = RedisServer(
            folder / "server-1",
            "repl-diskless-sync-delay 0",
            f"replicaof 127.0.0.1 {first.port}",
            *options,
        )
        self.servers = [first, second]
        self.sentinels: list[RedisServer] = [
            _Sentinel(folder / f"sentinel-{number}", first) for number in range(_SENTINELS)
        ]
        super().__init__(*self.servers, *self.sentinels)

    @property
    def url(self) -> str:
        """The addresses of the sentinels and the name by which they know the master."""
        return f"redis+sentinel://{','.join(f'127.0.0.1:{one.port}' for one in self.sentinels)}/{_NAME}"

    def master(self) -> RedisServer:
        """Return the master, as the sentinels name it."""
        sentinel = next(one for one in self.sentinels if one.up)
        _, port = sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", _NAME)
        return next(server for server in self.servers if server.port == int(port))

    def kill_master(self) -> RedisServer:
        """Kill the master and return it; ``wait_settled`` waits until the replica has its place."""
        server = self.master()
        server.kill()
        return server

    def wait_settled(self, seconds: float = _SETTLE_SECONDS) -> None:
        """Wait until the sentinels that are up agree on a master that is up, and its replica is linked."""
        wait_until(
            self._is_settled,
            "sentinels that agree on a master and see its replica",
            seconds=seconds,
            errors=(redis.RedisError, OSError),
        )

    def _is_settled(self) -> bool:
        up = [server for server in self.servers if server.up]
        sentinels = [sentinel for sentinel in self.sentinels if sentinel.up]
        for sentinel in sentinels:
            reply = sentinel.command("SENTINEL", "MASTER", _NAME)
            found = dict(zip(reply[::2], reply[1::2], strict=True))
            if (
                found["flags"] != "master"
                or int(found["num-other-sentinels"]) != _SENTINELS - 1
                or int(found["num-slaves"]) != 1
                or not str(sentinel.command("SENTINEL", "CKQUORUM", _NAME)).startswith("OK")
            ):
                return False
        masters = {
            sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", _NAME)[1] for sentinel in sentinels
        }
        if len(masters) != 1 or int(masters.pop()) not in {server.port for server in up}:
            return False
        return all(self._has_its_place(server) for server in up)

    def _has_its_place(self, server: RedisServer) -> bool:
        role = server.command("ROLE")
        master = self.master()
        if server is master:
            return bool(role[0] == "master")
        return bool(role[0] == "slave" and int(role[2]) == master.port and role[3] == "connected")
