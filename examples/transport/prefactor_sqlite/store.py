"""The file: its tables, and a thread in which transactions run one after another."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field

from prefactor_core.transport import BrokerError, BrokerOptions

R = TypeVar("R")

# Ids grow for ever (AUTOINCREMENT): a consumer reads from a cursor, and what it has read stays below it.
_TABLES = """
CREATE TABLE IF NOT EXISTS settings (prefix TEXT PRIMARY KEY, partitions INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS operations (
    id INTEGER PRIMARY KEY AUTOINCREMENT, prefix TEXT NOT NULL, partition INTEGER NOT NULL,
    at REAL NOT NULL, begun INTEGER NOT NULL DEFAULT 0, data BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS operations_in_order ON operations (prefix, partition, id);
CREATE TABLE IF NOT EXISTS leases (
    prefix TEXT, partition INTEGER, token TEXT, owner TEXT, expires REAL NOT NULL,
    seen INTEGER NOT NULL DEFAULT 0,          -- last id handed out by any owner
    head INTEGER NOT NULL DEFAULT 0,          -- first unsettled id at the last crash
    crashes INTEGER NOT NULL DEFAULT 0,       -- crashes at that head
    isolated_until INTEGER NOT NULL DEFAULT 0, -- up to this id, one operation at a time
    PRIMARY KEY (prefix, partition)
);
CREATE TABLE IF NOT EXISTS workers (
    prefix TEXT, token TEXT, expires REAL NOT NULL, PRIMARY KEY (prefix, token)
);
CREATE TABLE IF NOT EXISTS aside ( -- workers whose token the API refuses
    prefix TEXT, token TEXT, expires REAL NOT NULL, PRIMARY KEY (prefix, token)
);
CREATE TABLE IF NOT EXISTS askers ( -- readers that wait for the outcome of a replay
    prefix TEXT, address TEXT, expires REAL NOT NULL, PRIMARY KEY (prefix, address)
);
CREATE TABLE IF NOT EXISTS answers (
    id INTEGER PRIMARY KEY AUTOINCREMENT, prefix TEXT NOT NULL, address TEXT NOT NULL, data BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS dead_letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT, prefix TEXT NOT NULL, partition INTEGER NOT NULL, data BLOB NOT NULL
);
"""


TABLES = ("settings", "operations", "leases", "workers", "aside", "askers", "answers", "dead_letters")
"""Their names; each has a column for the prefix."""


class SqliteOptions(BrokerOptions):
    """The options of ``sqlite://``.

    Attributes:
        lease: Seconds for which a worker owns a partition without renewing it. When a worker dies, its
            partitions rest for that long.
    """

    lease: Annotated[float, Field(ge=0.5, le=3_600, allow_inf_nan=False)] = 15.0


class Store:
    """A connection, in a thread of its own: the event loop never waits for the disk.

    Args:
        path: The file.
        options: Those of the URL.
    """

    def __init__(self, path: Path, options: SqliteOptions) -> None:
        self.prefix = options.prefix
        self.lease = options.lease
        self._path = path
        self._options = options
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefactor-sqlite")
        self._connection: sqlite3.Connection | None = None
        self._closed = False

    async def write(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """Run ``work`` in a transaction that nobody else writes beside.

        Raises:
            BrokerError: The file cannot be used, or others held its lock for too long. Nothing was written,
                unless the commit itself failed.
        """
        return await self._run("BEGIN IMMEDIATE", work)

    async def read(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """Run ``work``, which only looks, on one consistent state of the file.

        Raises:
            BrokerError: The file cannot be used.
        """
        return await self._run("BEGIN", work)

    async def partitions(self) -> int:
        """Return the recorded number of partitions; where none is recorded, record the wanted one."""

        def recall(file: sqlite3.Connection) -> int:
            row = (self.prefix, self._options.partitions)
            file.execute("INSERT OR IGNORE INTO settings VALUES (?, ?)", row)
            (number,) = file.execute(
                "SELECT partitions FROM settings WHERE prefix = ?", (self.prefix,)
            ).fetchone()
            return int(number)

        return await self.write(recall)

    async def close(self) -> None:
        """Close the connection for good. Closing again does nothing."""
        if not self._closed:
            self._closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
            self._thread.shutdown(wait=False)

    async def _run(self, begin: str, work: Callable[[sqlite3.Connection], R]) -> R:
        # A caller that is cancelled leaves its transaction to end by itself; the next one queues behind it.
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._transact, begin, work)
        except (sqlite3.Error, RuntimeError) as error:  # RuntimeError: the thread has been shut down
            raise BrokerError(f"{self._path.name}: {error}") from error

    def _transact(self, begin: str, work: Callable[[sqlite3.Connection], R]) -> R:
        try:
            connection = self._connection or self._open()
            connection.execute(begin)
            result = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            self._close()  # rolls back; whatever was wrong with the connection is gone with it
            raise
        return result

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=self._options.timeout, isolation_level=None)
        self._connection = connection
        connection.execute("PRAGMA journal_mode = WAL")  # readers do not wait for a writer
        connection.execute("PRAGMA synchronous = FULL")  # what was confirmed survives a power cut
        connection.executescript(_TABLES)
        return connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def now() -> float:
    """Return the time that expiries in the file are written in: all processes are on one machine."""
    return time.time()
