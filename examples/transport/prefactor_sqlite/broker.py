"""The broker: what a URL says, and the three ends."""

import asyncio
import logging
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from prefactor_core.transport import (
    Broker,
    BrokerError,
    DeadLetterEnd,
    DeadLetterMessage,
    PublishingEnd,
    TransportError,
    split_options,
)
from prefactor_sqlite.consuming import SqliteConsuming
from prefactor_sqlite.store import TABLES, SqliteOptions, Store, now

logger = logging.getLogger("prefactor_sqlite")

_PAGE = 100
_WAIT = 1.0
_POLL = 0.05
_ASKING = 60.0
"""Seconds for which answers are kept for a command that asks no more: one that was killed."""


class SqliteBroker(Broker):
    """Operations in one file.

    Args:
        url: ``sqlite:///absolute/path.db``, with options.

    Raises:
        TransportError: The URL is wrong.
    """

    def __init__(self, url: str) -> None:
        address, options = split_options(url, SqliteOptions)
        parts = urlsplit(address)
        path = Path(unquote(parts.path))
        if parts.netloc or not path.name:
            raise TransportError("transport_url: expected sqlite:///absolute/path.db")
        self._path = path
        self._options = options
        self.name = f"sqlite://{path}?prefix={options.prefix}"

    def publishing(self) -> PublishingEnd:
        """Return a new end to publish through."""
        return SqlitePublishing(self._store())

    def consuming(self) -> SqliteConsuming:
        """Return a new end to consume through; leases are renewed over a connection of their own."""
        return SqliteConsuming(self._store(), self._store())

    def dead_letters(self) -> DeadLetterEnd:
        """Return a new end to look after dead letters through."""
        return SqliteDeadLetters(self._store())

    async def clear(self) -> None:
        """Delete every row of the prefix."""

        def delete_all(file: sqlite3.Connection) -> None:
            for table in TABLES:
                file.execute(f"DELETE FROM {table} WHERE prefix = ?", (self._options.prefix,))  # noqa: S608 -- our own names

        store = self._store()
        try:
            await store.write(delete_all)
        finally:
            await store.close()

    async def check(self) -> list[str]:
        """Open the file, and return what is wrong with it.

        Raises:
            BrokerError: It cannot be used.
        """
        store = self._store()
        try:
            (mode,) = await store.read(lambda file: file.execute("PRAGMA journal_mode").fetchone())
        finally:
            await store.close()
        if mode != "wal":
            return [f"journal mode {mode}: the file system has no shared memory; is it a network's?"]
        return []

    def _store(self) -> Store:
        return Store(self._path, self._options)


class SqlitePublishing(PublishingEnd):
    """Where an agent's operations go."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def partitions(self) -> int:
        """Return the recorded number of partitions, or record the wanted one."""
        return await self._store.partitions()

    async def publish(self, partition: int, batch: Sequence[bytes]) -> None:
        """Write a batch, all of it or none: ``BrokerError.confirmed`` is 0, and that is its default."""
        rows = [(self._store.prefix, partition, now(), data) for data in batch]
        insert = "INSERT INTO operations (prefix, partition, at, data) VALUES (?, ?, ?, ?)"
        await self._store.write(lambda file: file.executemany(insert, rows))

    async def disconnect(self) -> None:
        """Close the file."""
        await self._store.close()


class SqliteDeadLetters(DeadLetterEnd):
    """Where dead letters are kept."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._address: str | None = None

    async def read(self) -> AsyncIterator[DeadLetterMessage]:
        """Yield every dead letter, a page at a time."""
        last, prefix = 0, self._store.prefix
        page = "SELECT id, partition, data FROM dead_letters WHERE prefix = ? AND id > ? ORDER BY id LIMIT ?"
        while True:
            after = (prefix, last, _PAGE)
            rows = await self._store.read(lambda file, after=after: file.execute(page, after).fetchall())  # type: ignore[misc]
            if not rows:
                return
            for last, partition, data in rows:
                yield DeadLetterMessage(data, partition, last)

    async def count(self) -> int:
        """Return how many there are."""
        sql, prefix = "SELECT count(*) FROM dead_letters WHERE prefix = ?", self._store.prefix
        count: int = await self._store.read(lambda file: file.execute(sql, (prefix,)).fetchone()[0])
        return count

    async def remove(self, dead: Sequence[DeadLetterMessage]) -> None:
        """Remove dead letters that ``read`` yielded."""
        ids = [(one.receipt,) for one in dead]
        await self._store.write(lambda file: file.executemany("DELETE FROM dead_letters WHERE id = ?", ids))

    async def open_answers(self) -> str:
        """Return an address of this end's own; it lasts for as long as ``answers`` is called."""
        address = self._address = secrets.token_hex(16)

        def open_(file: sqlite3.Connection) -> None:
            file.execute("DELETE FROM askers WHERE expires < ?", (now(),))
            file.execute("DELETE FROM answers WHERE address NOT IN (SELECT address FROM askers)")
            row = (self._store.prefix, address, now() + _ASKING)
            file.execute("INSERT INTO askers VALUES (?, ?, ?)", row)

        await self._store.write(open_)
        return address

    async def answers(self) -> list[bytes]:
        """Return the answers that have arrived, after a wait of ``_WAIT`` seconds none."""
        deadline = time.monotonic() + _WAIT
        while True:
            arrived = await self._store.write(self._take_answers)
            if arrived or time.monotonic() >= deadline:
                return arrived
            await asyncio.sleep(_POLL)

    async def disconnect(self) -> None:
        """Close the address and the file."""
        if self._address is not None:
            try:
                await self._store.write(self._close_address)
            except BrokerError as error:
                logger.debug("an address for answers was not closed, and will expire: %s", error)
        await self._store.close()

    # -- inside

    def _take_answers(self, file: sqlite3.Connection) -> list[bytes]:
        key = (self._store.prefix, self._address)
        file.execute(
            "UPDATE askers SET expires = ? WHERE prefix = ? AND address = ?", (now() + _ASKING, *key)
        )
        rows = file.execute("SELECT data FROM answers WHERE prefix = ? AND address = ? ORDER BY id", key)
        arrived: list[bytes] = [data for (data,) in rows]
        if arrived:
            file.execute("DELETE FROM answers WHERE prefix = ? AND address = ?", key)
        return arrived

    def _close_address(self, file: sqlite3.Connection) -> None:
        for table in ("askers", "answers"):
            file.execute(
                f"DELETE FROM {table} WHERE prefix = ? AND address = ?",  # noqa: S608 -- our own names
                (self._store.prefix, self._address),
            )
