"""A partition that this process owns: every change to it is fenced by the token of the lease."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from prefactor_core.transport import MAX_ATTEMPTS, BrokerError, Lease, Message, Partition
from prefactor_sqlite.store import Store

logger = logging.getLogger("prefactor_sqlite")

R = TypeVar("R")

_WAIT = 2.0
_POLL = 0.05
_MINE = "SELECT 1 FROM leases WHERE prefix = ? AND partition = ? AND token = ?"


@dataclass(frozen=True, slots=True)
class Ownership:
    """What a new owner finds."""

    token: str
    """What tells the owner from others."""
    seen: int
    """Up to this id, earlier owners may have handled operations."""
    isolated_until: int
    """Up to this id, operations are handled one at a time."""
    isolated: bool
    """Whether there are any of those."""


class SqlitePartition(Partition):
    """One partition, for the time of one lease and its renewals.

    Args:
        store: The file.
        number: Which partition.
        ownership: What its owner found.
        lease: How long it is certainly ours.
    """

    def __init__(self, store: Store, number: int, ownership: Ownership, lease: Lease) -> None:
        self.number = number
        self.lease = lease
        self.token = ownership.token
        self._store = store
        self._ownership = ownership
        self._isolated = ownership.isolated
        self._cursor = 0
        self._begun: int | None = None

    @property
    def held(self) -> bool:
        """Whether the lease cannot have run out yet, by this process's own clock."""
        return self.lease.held

    @property
    def isolated(self) -> bool:
        """Whether one operation at a time is to be handled."""
        return self._isolated

    async def read(self, max_items: int, max_bytes: int) -> list[Message]:
        """Return the next messages, in order, after a wait of ``_WAIT`` seconds none.

        Raises:
            BrokerError: The partition is lost, or the file cannot be used.
        """
        deadline = time.monotonic() + _WAIT
        while not await self._store.read(self._any):
            if not self.held:
                raise self._lost()
            if time.monotonic() >= deadline:
                return []
            await asyncio.sleep(_POLL)
        # Whether they are ours to handle, and that they were handed out, is one transaction.
        rows = await self._fenced(lambda file: self._next(file, max_items, max_bytes))
        if rows is None or not self.held:
            raise self._lost()
        if rows:
            self._cursor = rows[-1][0]
        return [Message(data, id_, redelivered=id_ <= self._ownership.seen) for id_, data in rows]

    async def attempts(self, message: Message) -> int:
        """Return how often ``message`` was begun without an end, by owners before this one."""
        begun = "SELECT begun FROM operations WHERE id = ?"
        row = await self._store.read(lambda file: file.execute(begun, (message.receipt,)).fetchone())
        return 0 if row is None else int(row[0]) - (self._begun == message.receipt)

    async def begin(self, message: Message) -> bool:
        """Record an attempt, also one beyond those that ``message`` has."""
        id_ = _id_of(message)
        more = int(self._begun != id_)  # begun again it is the same attempt

        def begin(file: sqlite3.Connection) -> int:
            file.execute("UPDATE operations SET begun = begun + ? WHERE id = ?", (more, id_))
            row = file.execute("SELECT begun FROM operations WHERE id = ?", (id_,)).fetchone()
            return 0 if row is None else int(row[0])

        begun = await self._fenced(begin)
        if begun is None:
            raise self._lost()
        self._begun = id_
        return begun <= MAX_ATTEMPTS

    async def withdraw(self, message: Message) -> None:
        """Take back the attempt that this owner recorded last."""
        if self._begun != _id_of(message):
            return
        take_back = "UPDATE operations SET begun = begun - 1 WHERE id = ?"
        if await self._fenced(lambda file: file.execute(take_back, (message.receipt,)).rowcount) is None:
            raise self._lost()
        self._begun = None

    async def settle(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Delete messages; all are refused once the partition is another's."""
        return await self._dispose(messages, lambda file: _delete(file, messages))

    async def dead_letter(self, dead: Sequence[tuple[Message, bytes]]) -> Sequence[Message]:
        """Store dead letters and delete the messages in one transaction: repeating stores nothing twice."""
        insert = "INSERT INTO dead_letters (prefix, partition, data) VALUES (?, ?, ?)"

        def dead_letter_all(file: sqlite3.Connection) -> None:
            for message, stored in dead:
                if _delete(file, [message]):
                    file.execute(insert, (self._store.prefix, self.number, stored))

        return await self._dispose([message for message, _ in dead], dead_letter_all)

    async def release(self) -> None:
        """Release the lease, and take this owner's attempt back: ending cleanly is no crash."""
        self.lease.end()
        key = (self._store.prefix, self.number)

        def release(file: sqlite3.Connection) -> None:
            file.execute("UPDATE operations SET begun = begun - 1 WHERE id = ?", (self._begun,))
            if file.execute("SELECT 1 FROM operations WHERE prefix = ? AND partition = ?", key).fetchone():
                file.execute("UPDATE leases SET token = NULL, owner = NULL WHERE token = ?", (self.token,))
            else:
                file.execute("DELETE FROM leases WHERE token = ?", (self.token,))

        try:
            await self._fenced(release)
        except BrokerError as error:
            logger.debug("a lease was not released, and will run out: %s", error)

    # -- inside

    def _any(self, file: sqlite3.Connection) -> bool:
        rows = "SELECT 1 FROM operations WHERE prefix = ? AND partition = ? AND id > ? LIMIT 1"
        key = (self._store.prefix, self.number, self._cursor)
        return file.execute(rows, key).fetchone() is not None

    def _next(self, file: sqlite3.Connection, max_items: int, max_bytes: int) -> list[tuple[int, bytes]]:
        key = (self._store.prefix, self.number)
        taken: list[tuple[int, bytes]] = []
        size = 0
        for id_, data in file.execute(
            "SELECT id, data FROM operations WHERE prefix = ? AND partition = ? AND id > ?"
            " ORDER BY id LIMIT ?",
            (*key, self._cursor, max_items),
        ):
            size += len(data)
            if taken and size > max_bytes:
                break
            taken.append((id_, data))
        if taken:
            file.execute(
                "UPDATE leases SET seen = MAX(seen, ?) WHERE prefix = ? AND partition = ?",
                (taken[-1][0], *key),
            )
        return taken

    async def _dispose(
        self, messages: Sequence[Message], work: Callable[[sqlite3.Connection], object]
    ) -> Sequence[Message]:
        def dispose(file: sqlite3.Connection) -> bool:
            work(file)
            (first,) = file.execute(
                "SELECT MIN(id) FROM operations WHERE prefix = ? AND partition = ?",
                (self._store.prefix, self.number),
            ).fetchone()
            return first is not None and first <= self._ownership.isolated_until

        isolated = await self._fenced(dispose)
        if isolated is None:
            self.lease.end()
            return messages
        self._isolated = self._isolated and isolated
        if self._begun in {message.receipt for message in messages}:
            self._begun = None
        return ()

    async def _fenced(self, work: Callable[[sqlite3.Connection], R]) -> R | None:
        """Run ``work`` in a transaction if the partition is still ours in it; else return ``None``."""
        key = (self._store.prefix, self.number, self.token)

        def fenced(file: sqlite3.Connection) -> R | None:
            return work(file) if file.execute(_MINE, key).fetchone() else None

        return await self._store.write(fenced)

    def _lost(self) -> BrokerError:
        self.lease.end()
        return BrokerError(f"partition {self.number} is not owned by this process any more")


def _id_of(message: Message) -> int:
    if not isinstance(message.receipt, int):
        raise TypeError("the message is of another broker")
    return message.receipt


def _delete(file: sqlite3.Connection, messages: Sequence[Message]) -> int:
    ids = [(_id_of(message),) for message in messages]
    return file.executemany("DELETE FROM operations WHERE id = ?", ids).rowcount
