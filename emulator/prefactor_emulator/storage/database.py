"""The SQLite file: opening it, and doing things in it wholly or not at all."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

SCHEMA_VERSION: Final = 3
_LOCKED_SECONDS: Final = 30  # how long another process may write before an operation fails


class DatabaseError(Exception):
    """The database file cannot be used; the message says why."""


class Database:
    """The emulator's one connection.

    Every call is synchronous, so all of them run on the event loop, one after another.

    Args:
        path: The database file, made when missing, or `:memory:`.

    Raises:
        DatabaseError: The file is not a database of this emulator.
    """

    def __init__(self, path: str) -> None:
        try:
            self.connection = sqlite3.connect(
                path, isolation_level=None, cached_statements=256, timeout=_LOCKED_SECONDS
            )
        except sqlite3.Error as error:
            raise DatabaseError(f"cannot open the database {path}: {error}") from error
        try:
            self._prepare()
        except (sqlite3.Error, DatabaseError) as error:
            self.close()
            raise DatabaseError(f"cannot use {path} as the database: {error}") from error

    def _prepare(self) -> None:
        run = self.connection.execute
        (version,) = run("PRAGMA user_version").fetchone()
        (tables,) = run("SELECT count(*) FROM sqlite_schema").fetchone()
        if (version, bool(tables)) not in {(0, False), (SCHEMA_VERSION, True)}:
            raise DatabaseError("it was not made by this version of the emulator; name another")
        run("PRAGMA journal_mode = WAL")
        # Without a sync per commit, only a crash of the whole machine can take a commit back.
        run("PRAGMA synchronous = NORMAL")
        run("PRAGMA cache_size = -65536")
        if not version:
            schema = Path(__file__).parent / "schema.sql"
            self.connection.executescript(schema.read_text("utf-8").format(version=SCHEMA_VERSION))

    def close(self) -> None:
        """Close the file. Nothing else may be called afterwards."""
        self.connection.close()

    @contextmanager
    def transaction(self, committing: type[Exception]) -> Iterator[None]:
        """Commit what happens inside as a whole, or nothing of it when it raises.

        Args:
            committing: What may be raised inside without undoing what has happened.
        """
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            try:
                yield
            except committing:
                self.connection.execute("COMMIT")
                raise
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise
