"""A Redis cluster of a test's own: three masters, and a replica for each."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from tests.support.brokers.process import Servers
from tests.support.brokers.redis_server import RedisServer
from tests.support.brokers.waiting import wait_until

_MASTERS = 3
_SLOTS = 16_384
_SETTLE_SECONDS = 120.0


@dataclass(frozen=True)
class _Entry:
    """A line of CLUSTER NODES."""

    port: int
    name: str
    flags: frozenset[str]
    master: str
    slots: tuple[range, ...]

    @classmethod
    def read(cls, line: str) -> "_Entry":
        name, address, flags, master, _ping, _pong, _epoch, _link, *slots = line.split()
        ranges = []
        for word in slots:
            if not word.startswith("["):  # a slot on the move is listed a second time, in brackets
                first, _, last = word.partition("-")
                ranges.append(range(int(first), int(last or first) + 1))
        port = int(address.split("@")[0].rsplit(":", 1)[1])
        return cls(port, name, frozenset(flags.split(",")), master, tuple(ranges))


class RedisCluster(Servers):
    """Six nodes on this machine, each of which can be killed and started again.

    A master that is unavailable for two seconds is replaced by its replica.

    Args:
        folder: Where the nodes keep everything.
        options: Lines for the configuration of each node.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.nodes = [
            RedisServer(
                folder / f"node-{number}",
                "cluster-enabled yes",
                "cluster-config-file nodes.conf",
                "cluster-node-timeout 2000",
                "cluster-replica-validity-factor 0",  # no replica is too old: tests kill in quick succession
                "repl-diskless-sync-delay 0",
                *options,
            )
            for number in range(2 * _MASTERS)
        ]
        super().__init__(*self.nodes)

    @property
    def url(self) -> str:
        """The address of a node that is up; a client finds the others through it."""
        return f"redis+cluster://127.0.0.1:{self._up()[0].port}"

    def master_of(self, key: str) -> RedisServer:
        """Return the node that serves a key."""
        node = self._up()[0]
        slot = int(node.command("CLUSTER", "KEYSLOT", key))
        for entry in _view(node):
            if any(slot in slots for slots in entry.slots):
                return self._at(entry.port)
        raise LookupError(f"nobody serves slot {slot}")

    def replica_of(self, master: RedisServer) -> RedisServer:
        """Return the replica of a node."""
        view = _view(self._up()[0])
        name = next(entry.name for entry in view if entry.port == master.port)
        for entry in view:
            if entry.master == name:
                return self._at(entry.port)
        raise LookupError(f"nobody replicates {master.url}")

    def kill_master_of(self, key: str) -> RedisServer:
        """Kill the node that serves a key, and return it."""
        node = self.master_of(key)
        node.kill()
        return node

    def wait_settled(self, seconds: float = _SETTLE_SECONDS) -> None:
        """Wait until the nodes that are up serve every slot, agree on it, and the replicas are linked."""
        wait_until(
            self._is_settled,
            f"a settled cluster of {len(self._up())} nodes",
            seconds=seconds,
            errors=(redis.RedisError, OSError),
            details=lambda: "\n".join(f"{node.port}:\n{_raw_view(node)}" for node in self._up()),
        )

    def _is_settled(self) -> bool:
        nodes = self._up()
        views = [_view(node) for node in nodes]
        served = {(entry.port, entry.slots) for view in views for entry in view if entry.slots}
        # Where two nodes do not agree, some slot is counted twice.
        total = sum(len(slots) for _, ranges in served for slots in ranges)
        return (
            total == _SLOTS
            and all(self._is_whole(view) for view in views)
            and all("cluster_state:ok" in str(node.command("CLUSTER", "INFO")) for node in nodes)
            and all(_is_linked(node.command("ROLE")) for node in nodes)
        )

    def _is_whole(self, view: list[_Entry]) -> bool:
        """Return whether a node sees those that are up, and nobody else, as masters or their replicas."""
        seen = [entry for entry in view if not entry.flags & {"fail", "fail?", "handshake"}]
        masters = {entry.name for entry in seen if entry.slots}
        followed = {entry.master for entry in seen if not entry.slots}
        if {entry.port for entry in seen} != {node.port for node in self._up()}:
            return False
        return followed == masters if len(seen) == len(self.nodes) else followed <= masters

    def _join(self) -> None:
        super()._join()
        program = shutil.which("redis-cli")
        if program is None:
            raise FileNotFoundError("redis-cli is not installed")
        subprocess.run(
            [
                program,
                "--cluster",
                "create",
                *(f"127.0.0.1:{node.port}" for node in self.nodes),
                "--cluster-replicas",
                "1",
                "--cluster-yes",
            ],
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SETTLE_SECONDS,
        )

    def _up(self) -> list[RedisServer]:
        return [node for node in self.nodes if node.up]

    def _at(self, port: int) -> RedisServer:
        return next(node for node in self.nodes if node.port == port)


def _is_linked(role: list[Any]) -> bool:
    return bool(role[0] == "master" or role[3] == "connected")


def _view(node: RedisServer) -> list[_Entry]:
    return [_Entry.read(line) for line in str(node.command("CLUSTER", "NODES")).splitlines()]


def _raw_view(node: RedisServer) -> str:
    try:
        return str(node.command("CLUSTER", "NODES"))
    except (redis.RedisError, OSError) as error:
        return repr(error)
