"""Reading what the checker compares: a file of puts, and a database's log of effects."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from prefactor_emulator.model import OperationType
from prefactor_emulator.storage.database import SCHEMA_VERSION
from prefactor_emulator.verify.compare import PUT_TYPES, LoggedEffect, Put


class VerifyInputError(ValueError):
    """A file cannot be compared; the message is one line that says why."""


def read_puts(path: str) -> Iterator[Put]:
    """Read a JSON-lines file of `{"instance_id", "type", "key"}`.

    Raises:
        VerifyInputError: The file, or a line of it, cannot be read so.
    """
    try:
        with Path(path).open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _put(line, f"{path}, line {number}")
    except OSError as error:
        raise VerifyInputError(f"cannot read {path}: {error.strerror}") from error


def _put(line: bytes, where: str) -> Put:
    try:
        value = from_json(line)
    except ValueError:
        raise VerifyInputError(f"{where}: this is not JSON") from None
    if not isinstance(value, dict):
        raise VerifyInputError(f"{where}: this is not a JSON object")
    for name in ("instance_id", "type", "key"):
        if not isinstance(value.get(name), str):
            raise VerifyInputError(f"{where}: {name!r} is missing, or is not a string")
    operation_type = PUT_TYPES.get(value["type"])
    if operation_type is None:
        known = ", ".join(PUT_TYPES)
        raise VerifyInputError(f"{where}: there is no type {value['type']!r}; there are {known}")
    return Put(value["instance_id"], operation_type, value["key"])


def read_effects(path: str) -> Iterator[LoggedEffect]:
    """Read the log of an emulator's database, which may be running meanwhile.

    Raises:
        VerifyInputError: The file is not such a database.
    """
    rows = _rows(
        path,
        "SELECT account, instance_id, type, span_id, key FROM effects WHERE type <> ? ORDER BY seq",
        OperationType.TERMINATE_INSTANCE,  # the service's doing, which nobody puts
    )
    for account, instance_id, operation_type, span_id, key in rows:
        yield LoggedEffect(account, instance_id, OperationType(operation_type), span_id, key)


def read_terminated(path: str) -> frozenset[str]:
    """Read which instances of such a database are terminated. Raises ``VerifyInputError``."""
    rows = _rows(path, "SELECT id FROM instances WHERE status = ?", "terminated")
    return frozenset(each for (each,) in rows)


def _rows(path: str, query: str, *values: str) -> Iterator[Any]:
    if not Path(path).is_file():
        raise VerifyInputError(f"there is no database {path}")
    try:
        address = f"{Path(path).absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True)) as connection:
            if connection.execute("PRAGMA user_version").fetchone() != (SCHEMA_VERSION,):
                raise VerifyInputError(f"{path} was not made by this version of the emulator")
            yield from connection.execute(query, values)
    except sqlite3.Error as error:
        raise VerifyInputError(f"cannot read {path} as a database: {error}") from error
