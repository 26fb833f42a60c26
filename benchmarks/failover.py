"""How much of what was confirmed is gone after a crash: figures, not a test.

``python -m benchmarks.failover [ROUNDS]`` publishes operations of 1 KB through the transport to 16
partitions, as fast as they are confirmed, and kills the server with SIGKILL in the middle. Then everything
that was confirmed is looked for. Its cases:

- ``cluster``: three masters with a replica each; the master of partition 0 is killed and its replica takes
  over; without and with ``replicas=1``.
- ``lagging``: the same, and the replica was stopped for a second until right after the kill.
- ``machine``: a master whose replica is connected through a proxy; the proxy stops passing anything on and
  the master is killed at the same moment, so that what was on its way is lost, as with a machine that dies;
  the replica is promoted.
- ``single``: one server, with each ``appendfsync``, killed and started again.
- ``syncing``: one server with ``appendfsync everysec``, killed while it holds back what it has confirmed,
  because the disk is still busy with the sync before.
"""

import asyncio
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis

from prefactor_core.broker.driver import PublishingEnd
from prefactor_core.exceptions import BrokerError
from prefactor_redis.broker import RedisBroker
from prefactor_redis.keys import Keys
from tests.support.brokers.proxy import Proxy
from tests.support.brokers.redis_cluster import RedisCluster
from tests.support.brokers.redis_server import RedisServer
from tests.support.brokers.waiting import wait_until

PARTITIONS = 16
BATCH = 100
SECONDS = 1.5
LAG = 1.0
_FILLING = b"x" * 1_010
EVERYSEC = "appendfsync everysec"
HELD_BACK = 1_000_000
"""Bytes that a server has confirmed and not written: more than can come in one turn of its loop."""


@dataclass
class Round:
    """What one round published and found."""

    confirmed: dict[int, list[bytes]] = field(default_factory=dict)
    missing: int = 0
    holes: int = 0

    @property
    def number(self) -> int:
        """How many operations were confirmed."""
        return sum(map(len, self.confirmed.values()))

    def compare(self, partition: int, found: Sequence[bytes]) -> None:
        """Look for what was confirmed of a partition."""
        there = set(found)
        confirmed = self.confirmed.get(partition, [])
        gone = [one for one in confirmed if one not in there]
        self.missing += len(gone)
        # What is lost should be the end of a partition, never something in the middle.
        self.holes += gone != confirmed[len(confirmed) - len(gone) :]


async def publish(end: PublishingEnd, partition: int, found: Round) -> None:
    """Publish to one partition until the broker fails."""
    mine = found.confirmed.setdefault(partition, [])
    number = 0
    while True:
        batch = [b"%d-%d-" % (partition, number + one) + _FILLING for one in range(BATCH)]
        number += BATCH
        try:
            await end.publish(partition, batch)
        except BrokerError:
            return
        mine += [one[: -len(_FILLING)] for one in batch]


async def flood(url: str, kill: Callable[[], Awaitable[None]], partitions: Sequence[int]) -> Round:
    """Publish for a while, kill in the middle of it, and return what was confirmed until then."""
    found = Round()
    end = RedisBroker(url).publishing()
    await end.partitions()
    tasks = [asyncio.create_task(publish(end, one, found)) for one in partitions]
    await asyncio.sleep(SECONDS)
    await kill()
    await asyncio.wait(tasks, timeout=15)
    for task in tasks:
        task.cancel()
    await end.disconnect()
    return found


def entries(server: RedisServer, prefix: str, partition: int) -> list[bytes]:
    """Return what is in a partition's stream, without the filling."""
    with redis.Redis.from_url(server.url) as client:
        found = client.xrange(Keys(prefix).of(partition).operations)
        client.delete(Keys(prefix).of(partition).operations)
    return [fields[b"e"][: -len(_FILLING)] for _, fields in found]


async def cluster_round(cluster: RedisCluster, replicas: int, lag: float) -> Round:
    """Kill a master of a cluster."""
    await asyncio.to_thread(cluster.heal)
    prefix = f"lost-{uuid.uuid4().hex[:8]}"
    nodes = ",".join(f"127.0.0.1:{node.port}" for node in cluster.nodes)
    keys = [Keys(prefix).of(one).operations.decode() for one in range(PARTITIONS)]
    masters = [await asyncio.to_thread(cluster.master_of, key) for key in keys]
    replica = await asyncio.to_thread(cluster.replica_of, masters[0])
    mine = [one for one in range(PARTITIONS) if masters[one] is masters[0]]

    async def kill() -> None:
        await asyncio.to_thread(masters[0].kill)
        replica.thaw()

    if lag:
        asyncio.get_running_loop().call_later(SECONDS - lag, replica.freeze)
    url = f"redis+cluster://{nodes}?prefix={prefix}&replicas={replicas}&timeout=5"
    found = await flood(url, kill, mine)
    await asyncio.to_thread(cluster.wait_settled)
    assert await asyncio.to_thread(cluster.master_of, keys[0]) is replica
    for partition in mine:
        found.compare(partition, await asyncio.to_thread(entries, replica, prefix, partition))
    return found


@asynccontextmanager
async def pair(folder: Path) -> AsyncIterator[tuple[RedisServer, RedisServer, Proxy]]:
    """A master, and a replica that is connected to it through a proxy."""
    master = RedisServer(folder / "master", EVERYSEC, "repl-diskless-sync-delay 0")
    await asyncio.to_thread(master.start)
    try:
        async with Proxy.before(master.url) as proxy:
            replica = RedisServer(folder / "replica", EVERYSEC, f"replicaof 127.0.0.1 {proxy.port}")
            await asyncio.to_thread(replica.start)
            try:
                linked = lambda: replica.command("ROLE")[3] == "connected"  # noqa: E731
                await asyncio.to_thread(wait_until, linked, "a linked replica", seconds=20)
                yield master, replica, proxy
            finally:
                replica.close()
    finally:
        master.close()


async def machine_round(folder: Path, replicas: int) -> Round:
    """Kill a master with all that it has not yet sent, and all that is on its way."""
    prefix = f"lost-{uuid.uuid4().hex[:8]}"
    async with pair(folder) as (master, replica, proxy):

        async def kill() -> None:
            # In one step of the loop: nothing that the master confirms in between is counted.
            proxy.swallow()
            master.kill()
            await proxy.reset()

        url = f"{master.url}?prefix={prefix}&replicas={replicas}&timeout=5"
        found = await flood(url, kill, range(PARTITIONS))
        await asyncio.to_thread(replica.command, "REPLICAOF", "NO", "ONE")
        for partition in range(PARTITIONS):
            found.compare(partition, await asyncio.to_thread(entries, replica, prefix, partition))
    return found


async def single_round(folder: Path, fsync: str, *, syncing: bool = False) -> Round:
    """Kill a server on its own, at any time or during a sync, and start it again."""
    prefix = f"lost-{uuid.uuid4().hex[:8]}"
    server = RedisServer(folder, f"appendfsync {fsync}")
    await asyncio.to_thread(server.start)

    def kill() -> None:
        if syncing:
            with redis.Redis.from_url(server.url) as client:
                wait_until(lambda: _held_back(client) > HELD_BACK, "a slow sync", seconds=10, pause=0)
        server.kill()

    try:
        url = f"{server.url}?prefix={prefix}&timeout=5"
        found = await flood(url, lambda: asyncio.to_thread(kill), range(PARTITIONS))
        await asyncio.to_thread(server.start)
        for partition in range(PARTITIONS):
            found.compare(partition, await asyncio.to_thread(entries, server, prefix, partition))
    finally:
        server.close()
    return found


def _held_back(client: redis.Redis) -> int:
    found: dict[str, int] = client.info("persistence")
    return found["aof_buffer_length"]


def report(name: str, rounds: Sequence[Round]) -> None:
    """Write a case's line."""
    missing = [one.missing for one in rounds]
    sys.stdout.write(
        f"{name:<32} confirmed {sum(one.number for one in rounds):>9,}  missing {sum(missing):>7,}  "
        f"by round {missing}, not at an end {sum(one.holes for one in rounds)}\n"
    )
    sys.stdout.flush()


async def main(rounds: int) -> None:
    """Measure all cases."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases: dict[str, list[Round]] = {}
        cluster = RedisCluster(folder / "cluster", EVERYSEC)
        await asyncio.to_thread(cluster.start)
        try:
            for _ in range(rounds):
                for replicas in (0, 1):
                    for kind, lag in (("cluster", 0.0), ("lagging", LAG)):
                        found = await cluster_round(cluster, replicas, lag)
                        cases.setdefault(f"{kind}, replicas={replicas}", []).append(found)
        finally:
            cluster.close()
        for turn in range(rounds):
            for replicas in (0, 1):
                found = await machine_round(folder / f"pair-{turn}-{replicas}", replicas)
                cases.setdefault(f"machine, replicas={replicas}", []).append(found)
            for fsync in ("always", "everysec", "no"):
                found = await single_round(folder / f"single-{turn}-{fsync}", fsync)
                cases.setdefault(f"single, appendfsync {fsync}", []).append(found)
            found = await single_round(folder / f"syncing-{turn}", "everysec", syncing=True)
            cases.setdefault("syncing, appendfsync everysec", []).append(found)
        for case, found_all in cases.items():
            report(case, found_all)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
