"""The broker: what a URL says, and the three ends."""

import asyncio
import logging
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

from pydantic import Field

from prefactor_core.broker.driver import Broker, DeadLetterEnd, DeadLetterMessage, PublishingEnd
from prefactor_core.broker.options import BrokerOptions, split_options
from prefactor_core.exceptions import BrokerError, TransportError
from prefactor_sqlite.consuming import SqliteConsuming
from prefactor_sqlite.store import TABLES, Place, Store, now, partitions

logger = logging.getLogger("prefactor_sqlite")

_PAGE = 100
_WAIT = 1.0
_POLL = 0.05
_ASKING = 60.0
"""Seconds for which answers are kept for somebody who does not ask any more: a process that was killed."""


class SqliteOptions(BrokerOptions):
    """The options of ``sqlite://``.

    Attributes:
        lease: Seconds for which a worker owns a partition without renewing it. When a worker dies, its
            partitions rest for that long.
    """

    lease: Annotated[float, Field(ge=0.5, le=3_600, allow_inf_nan=False)] = 15.0


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
        self._place = Place(path, options, options.lease)
        self.name = f"sqlite://{path}?prefix={options.prefix}"

    def publishing(self) -> PublishingEnd:
        """Return a new end to publish through."""
        return SqlitePublishing(self._place)

    def consuming(self) -> SqliteConsuming:
        """Return a new end to consume through."""
        return SqliteConsuming(self._place)

    def dead_letters(self) -> DeadLetterEnd:
        """Return a new end to look after dead letters through."""
        return SqliteDeadLetters(self._place)

    async def clear(self) -> None:
        """Delete every row of the prefix."""
        store = Store(self._place)
        try:
            await store.write(self._delete_all)
        finally:
            await store.close()

    def _delete_all(self, file: sqlite3.Connection) -> None:
        for table in TABLES:
            file.execute(f"DELETE FROM {table} WHERE prefix = ?", (self._place.prefix,))  # noqa: S608 -- our own names

    async def check(self) -> list[str]:
        """Open the file, and return what is wrong with it.

        Raises:
            BrokerError: It cannot be used.
        """
        store = Store(self._place)
        try:
            (mode,) = await store.read(lambda file: file.execute("PRAGMA journal_mode").fetchone())
        finally:
            await store.close()
        if mode != "wal":
            return [f"journal mode {mode}: the file system has no shared memory; is it a network's?"]
        return []


class SqlitePublishing(PublishingEnd):
    """Where an agent's operations go.

    Args:
        place: Which file.
    """

    def __init__(self, place: Place) -> None:
        self._store = Store(place)

    async def partitions(self) -> int:
        """Return the recorded number of partitions, or record the wanted one."""
        return await partitions(self._store)

    async def publish(self, partition: int, batch: Sequence[bytes]) -> None:
        """Write a batch, all of it or none: ``BrokerError.confirmed`` is 0, and that is its default."""
        rows = [(self._store.place.prefix, partition, now(), data) for data in batch]
        insert = "INSERT INTO operations (prefix, partition, at, data) VALUES (?, ?, ?, ?)"
        await self._store.write(lambda file: file.executemany(insert, rows))

    async def disconnect(self) -> None:
        """Close the file."""
        await self._store.close()


class SqliteDeadLetters(DeadLetterEnd):
    """Where dead letters are kept.

    Args:
        place: Which file.
    """

    def __init__(self, place: Place) -> None:
        self._store = Store(place)
        self._address: str | None = None

    async def read(self) -> AsyncIterator[DeadLetterMessage]:
        """Yield every record, a page at a time."""
        last, prefix = 0, self._store.place.prefix
        page = "SELECT id, partition, data FROM dead_letters WHERE prefix = ? AND id > ? ORDER BY id LIMIT ?"
        while True:
            after = (prefix, last, _PAGE)
            rows = await self._store.read(lambda file, after=after: file.execute(page, after).fetchall())  # type: ignore[misc]
            if not rows:
                return
            for last, partition, data in rows:
                yield DeadLetterMessage(data, partition, last)

    async def count(self) -> int:
        """Return how many records there are."""
        sql, prefix = "SELECT count(*) FROM dead_letters WHERE prefix = ?", self._store.place.prefix
        count: int = await self._store.read(lambda file: file.execute(sql, (prefix,)).fetchone()[0])
        return count

    async def remove(self, letters: Sequence[DeadLetterMessage]) -> None:
        """Remove records that ``read`` yielded."""
        ids = [(letter.receipt,) for letter in letters]
        await self._store.write(lambda file: file.executemany("DELETE FROM dead_letters WHERE id = ?", ids))

    async def open_answers(self) -> str:
        """Return an address of this end's own; it lasts for as long as ``answers`` is called."""
        address = self._address = secrets.token_hex(16)

        def open_(file: sqlite3.Connection) -> None:
            file.execute("DELETE FROM askers WHERE expires < ?", (now(),))
            file.execute("DELETE FROM answers WHERE address NOT IN (SELECT address FROM askers)")
            file.execute("INSERT INTO askers VALUES (?, ?, ?)", (self._prefix, address, now() + _ASKING))

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

    @property
    def _prefix(self) -> str:
        return self._store.place.prefix

    def _take_answers(self, file: sqlite3.Connection) -> list[bytes]:
        key = (self._prefix, self._address)
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
                (self._prefix, self._address),
            )
