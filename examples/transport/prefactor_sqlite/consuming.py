"""Consuming: the fleet, who owns which partition, and the task that renews leases."""

import asyncio
import logging
import secrets
import sqlite3
import time
from collections.abc import Sequence
from functools import partial

from prefactor_core.transport import BrokerError, ConsumingEnd, Fleet, Lease, PartitionState, process_name
from prefactor_sqlite.partition import Ownership, SqlitePartition
from prefactor_sqlite.store import Store, now

logger = logging.getLogger("prefactor_sqlite")

_CRASHES = 3
"""Crashes without progress after which a partition is isolated."""
_ROUND = 1.0
"""Seconds in which the fleet is looked at, and membership renewed by that."""


class SqliteConsuming(ConsumingEnd):
    """Where a worker's deliveries come from.

    Args:
        store: For everything but renewals.
        renewals: For those: nothing else may hold them up.
    """

    def __init__(self, store: Store, renewals: Store) -> None:
        self._store = store
        self._renewals = renewals
        self._token = secrets.token_hex(16)
        self._owned: set[SqlitePartition] = set()
        self._renewing: asyncio.Task[None] | None = None

    async def partitions(self) -> int:
        """Return the recorded number of partitions, or record the wanted one."""
        return await self._store.partitions()

    async def fleet(self) -> Fleet:
        """Join the fleet, or stay in it, and return it."""
        prefix, token, expires = self._store.prefix, self._token, now() + self._store.lease + _ROUND

        def join(file: sqlite3.Connection) -> list[str]:
            file.execute("DELETE FROM workers WHERE expires < ?", (now(),))
            file.execute("DELETE FROM aside WHERE token = ?", (token,))
            file.execute("INSERT OR REPLACE INTO workers VALUES (?, ?, ?)", (prefix, token, expires))
            rows = file.execute("SELECT token FROM workers WHERE prefix = ? ORDER BY token", (prefix,))
            return [row[0] for row in rows]

        tokens = await self._store.write(join)
        return Fleet(len(tokens), tokens.index(token))

    async def stand_aside(self) -> None:
        """Leave the fleet, and be counted among those that stand aside."""
        row = (self._store.prefix, self._token, now() + self._store.lease + _ROUND)

        def leave(file: sqlite3.Connection) -> None:
            file.execute("DELETE FROM workers WHERE token = ?", (self._token,))
            file.execute("DELETE FROM aside WHERE expires < ?", (now(),))
            file.execute("INSERT OR REPLACE INTO aside VALUES (?, ?, ?)", row)

        await self._store.write(leave)

    async def standing_aside(self) -> int:
        """Return how many workers stand aside."""
        sql, key = "SELECT COUNT(*) FROM aside WHERE prefix = ? AND expires >= ?", (self._store.prefix, now())
        (number,) = await self._store.read(lambda file: file.execute(sql, key).fetchone())
        return int(number)

    async def answer(self, address: str, answers: Sequence[bytes]) -> None:
        """Store answers for the reader that waits for them; without one they are dropped."""
        insert = (
            "INSERT INTO answers (prefix, address, data) SELECT prefix, address, ? FROM askers"
            " WHERE prefix = ? AND address = ? AND expires >= ?"
        )
        rows = [(data, self._store.prefix, address, now()) for data in answers]
        await self._store.write(lambda file: file.executemany(insert, rows))

    async def acquire(self, partition: int, max_items: int) -> SqlitePartition | None:
        """Become the owner of a partition, unless somebody else is."""
        del max_items  # reading is cheap here, and needs no preparation
        token, asked_at = secrets.token_hex(16), time.monotonic()
        ownership = await self._store.write(lambda file: self._take(file, partition, token))
        if ownership is None:
            return None
        taken = SqlitePartition(self._store, partition, ownership, Lease(self._store.lease, asked_at))
        self._owned.add(taken)
        if self._renewing is None:
            self._renewing = asyncio.get_running_loop().create_task(self._renew_leases())
        return taken

    async def backlog(self) -> int:
        """Return how many operations are unsettled."""
        count, prefix = "SELECT COUNT(*) FROM operations WHERE prefix = ?", self._store.prefix
        (waiting,) = await self._store.read(lambda file: file.execute(count, (prefix,)).fetchone())
        return int(waiting)

    async def states(self) -> list[PartitionState]:
        """Return every partition's state."""
        numbers = range(await self.partitions())
        return await self._store.read(lambda file: [self._state(file, number) for number in numbers])

    async def disconnect(self) -> None:
        """Leave the fleet and close the file. Partitions are released before, by their user."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
        try:
            await self._store.write(self._leave)
        except BrokerError as error:
            logger.debug("leaving the fleet failed, so it will be noticed: %s", error)
        await self._store.close()
        await self._renewals.close()

    # -- inside

    def _leave(self, file: sqlite3.Connection) -> None:
        for table in ("workers", "aside"):
            file.execute(f"DELETE FROM {table} WHERE token = ?", (self._token,))  # noqa: S608 -- our own names

    def _take(self, file: sqlite3.Connection, partition: int, token: str) -> Ownership | None:
        key = (self._store.prefix, partition)
        file.execute("INSERT OR IGNORE INTO leases (prefix, partition, expires) VALUES (?, ?, 0)", key)
        before, expires, seen, head, crashes, isolated_until = file.execute(
            "SELECT token, expires, seen, head, crashes, isolated_until FROM leases"
            " WHERE prefix = ? AND partition = ?",
            key,
        ).fetchone()
        if before is not None and expires > now():
            return None
        (first,) = file.execute(
            "SELECT MIN(id) FROM operations WHERE prefix = ? AND partition = ?", key
        ).fetchone()
        if before is not None and first is not None:  # a lease that ran out: its owner did not release it
            head, crashes = first, crashes + 1 if first == head else 1
            if crashes >= _CRASHES:
                isolated_until = seen
        file.execute(
            "UPDATE leases SET token = ?, owner = ?, expires = ?, head = ?, crashes = ?, isolated_until = ?"
            " WHERE prefix = ? AND partition = ?",
            (token, process_name(), now() + self._store.lease, head, crashes, isolated_until, *key),
        )
        return Ownership(token, seen, isolated_until, isolated=first is not None and first <= isolated_until)

    async def _renew_leases(self) -> None:
        """Renew the leases of what is owned, four times in the time of one."""
        while True:
            await asyncio.sleep(self._store.lease / 4)
            self._owned = {partition for partition in self._owned if partition.held}
            asked_at, expires = time.monotonic(), now() + self._store.lease
            tokens = {partition.token: partition for partition in self._owned}

            renew = partial(_renew, tokens=list(tokens), expires=expires)
            try:
                for token in await self._renewals.write(renew):
                    tokens[token].lease.renewed(asked_at)
            except BrokerError as error:
                logger.warning("leases were not renewed: %s", error)

    def _state(self, file: sqlite3.Connection, number: int) -> PartitionState:
        key = (self._store.prefix, number)
        where = "WHERE prefix = ? AND partition = ?"
        waiting, oldest = file.execute(f"SELECT COUNT(*), MIN(at) FROM operations {where}", key).fetchone()  # noqa: S608
        (dead,) = file.execute(f"SELECT COUNT(*) FROM dead_letters {where}", key).fetchone()  # noqa: S608
        owner = file.execute(f"SELECT owner FROM leases {where} AND expires > ?", (*key, now())).fetchone()  # noqa: S608
        return PartitionState(number, waiting, dead, owner[0] if owner else None, oldest)


def _renew(file: sqlite3.Connection, tokens: list[str], expires: float) -> list[str]:
    """Return the tokens that were leases still: nobody else has taken those partitions."""
    update = "UPDATE leases SET expires = ? WHERE token = ?"
    return [token for token in tokens if file.execute(update, (expires, token)).rowcount]
