"""SQLite behind the rules. What a reply has acknowledged survives a kill of the process."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any, Final, TypeAlias, TypeVar

from pydantic_core import from_json, to_json

from prefactor_emulator.model import Refusal
from prefactor_emulator.storage.database import Database
from prefactor_emulator.storage.records import (
    AgentRecord,
    Effect,
    InstanceRecord,
    Quality,
    Record,
    Remembered,
    SpanRecord,
    VersionRecord,
)

R = TypeVar("R", bound=Record)
Value: TypeAlias = str | int | bytes | None

_JSON: Final = frozenset({"content", "flags", "payload", "registration", "result_payload"})
_COLUMNS: Final[Mapping[type[Record], tuple[str, ...]]] = MappingProxyType(
    {
        kind: tuple(field.name for field in fields(kind))
        for kind in (AgentRecord, VersionRecord, InstanceRecord, SpanRecord)
    }
)


class Store:
    """What the rules have let happen.

    Reads that take an account are limited to it: what belongs to another is not there. Names of tables and
    columns in its statements are those of the records; what comes from outside is always a parameter.

    Args:
        database: Where it is kept. Whoever calls a method that writes has begun a transaction.
    """

    def __init__(self, database: Database) -> None:
        self._connection = database.connection
        self._database = database
        self._instances: dict[str, InstanceRecord] = {}  # those read in this transaction, as they are in it

    def transaction(self) -> AbstractContextManager[None]:
        """Commit what happens inside as a whole, or nothing of it when it raises anything but a refusal."""
        self._instances.clear()  # another process may have changed them
        return self._database.transaction(committing=Refusal)

    def add(self, record: Record, **more: object) -> bool:
        """Keep a new record, with the columns that only its table has.

        Returns:
            Whether it is new. If not, nothing happened: its id, or what else is unique, is taken.
        """
        values = {name: getattr(record, name) for name in _COLUMNS[type(record)]} | more
        marks = ", ".join("?" * len(values))
        done = self._connection.execute(
            f"INSERT OR IGNORE INTO {record.table} ({', '.join(values)}) VALUES ({marks})",  # noqa: S608 - as above
            [_stored(name, value) for name, value in values.items()],
        )
        return done.rowcount == 1

    def update(self, record: R, **changes: Any) -> R:
        """Change fields of a record, and return its new form; its id stays."""
        columns = ", ".join(f"{name} = ?" for name in changes)
        self._connection.execute(
            f"UPDATE {record.table} SET {columns} WHERE id = ?",  # noqa: S608 - as above
            [*(_stored(name, value) for name, value in changes.items()), record.id],
        )
        self._instances.pop(record.id, None)
        return replace(record, **changes)

    def remove(self, record: Record) -> None:
        """Forget a record."""
        self._connection.execute(
            f"DELETE FROM {record.table} WHERE id = ?",  # noqa: S608 - as above
            (record.id,),
        )

    def find(self, kind: type[R], where: str, *values: Value) -> R | None:
        """Find the record for which a condition holds, the oldest if there are more."""
        found = self.select(kind, f"{where} ORDER BY rowid LIMIT 1", *values)
        return found[0] if found else None

    def select(self, kind: type[R], where: str, *values: Value) -> list[R]:
        """Find records by a condition, and what may follow it."""
        names = _COLUMNS[kind]
        rows = self._connection.execute(
            f"SELECT {', '.join(names)} FROM {kind.table} WHERE {where}",  # noqa: S608 - as above
            values,
        )
        encoded = [index for index, name in enumerate(names) if name in _JSON]
        return [kind(*_decoded(row, encoded)) for row in rows]

    def count(self, kind: type[Record], where: str, *values: Value) -> int:
        """Count the records for which a condition holds."""
        statement = f"SELECT count(*) FROM {kind.table} WHERE {where}"  # noqa: S608 - as above
        return int(self._connection.execute(statement, values).fetchone()[0])

    def count_by_status(self, kind: type[Record], where: str, *values: Value) -> dict[str, int]:
        """Count the records for which a condition holds, by their status."""
        statement = f"SELECT status, count(*) FROM {kind.table} WHERE {where} GROUP BY status"  # noqa: S608
        return dict(self._connection.execute(statement, values).fetchall())

    def instance(self, account: str, instance_id: str) -> InstanceRecord | None:
        """Find an instance."""
        known = self._instances.get(instance_id) if self._connection.in_transaction else None
        found = known or self.find(InstanceRecord, "id = ?", instance_id)
        if found is None or found.account != account:
            return None
        if self._connection.in_transaction:
            self._instances[instance_id] = found
        return found

    def span(self, span_id: str) -> SpanRecord | None:
        """Find a span, whoever owns it."""
        return self.find(SpanRecord, "id = ?", span_id)

    def terminate_instance(self, instance_id: str, reason: str | None, now: str) -> bool:
        """End an instance from the service's side, and cancel its spans in flight.

        Returns:
            Whether there was such an instance and it was not over yet.
        """
        self._instances.pop(instance_id, None)
        ended = self._connection.execute(
            "UPDATE instances SET status = 'terminated', termination_reason = ?, finished_at = ?,"
            " updated_at = ? WHERE id = ? AND status IN ('pending', 'active')",
            (reason, now, now, instance_id),
        )
        self._connection.execute(
            "UPDATE spans SET status = 'cancelled', finished_at = ?, updated_at = ?"
            " WHERE instance_id = ? AND status IN ('pending', 'active') AND ?",
            (now, now, instance_id, ended.rowcount),
        )
        return ended.rowcount == 1

    def set_quality(self, instance_id: str, quality: Quality) -> None:
        """Set a quality of an instance."""
        stored = (_stored(name, value) for name, value in quality._asdict().items())
        self._connection.execute(
            "INSERT OR REPLACE INTO qualities VALUES (?, ?, ?, ?, ?)", (instance_id, *stored)
        )

    def remove_quality(self, instance_id: str, name: str) -> None:
        """Remove a quality of an instance, if it has it."""
        statement = "DELETE FROM qualities WHERE instance_id = ? AND name = ?"
        self._connection.execute(statement, (instance_id, name))

    def qualities(self, instance_id: str) -> list[Quality]:
        """List the qualities of an instance, by name."""
        rows = self._connection.execute(
            "SELECT name, payload, summary, flags FROM qualities WHERE instance_id = ? ORDER BY name",
            (instance_id,),
        )
        return [Quality(*_decoded(row, (1, 3))) for row in rows]

    def remembered(self, scope: str, key: str) -> Remembered | None:
        """Look up what succeeded under this key."""
        statement = "SELECT digest, reply FROM keys WHERE scope = ? AND key = ?"
        row = self._connection.execute(statement, (scope, key)).fetchone()
        return None if row is None else Remembered(*row)

    def remember(self, scope: str, key: str, remembered: Remembered) -> None:
        """Keep a success for repeats of the same request."""
        self._connection.execute("INSERT INTO keys VALUES (?, ?, ?, ?)", (scope, key, *remembered))

    def forget_keys(self) -> None:
        """Let every idempotency key expire."""
        self._connection.execute("DELETE FROM keys")

    def add_effect(self, effect: Effect) -> None:
        """Append to the log."""
        self._connection.execute(
            "INSERT INTO effects (at, account, type, instance_id, span_id, key) VALUES (?, ?, ?, ?, ?, ?)",
            effect,
        )


def _stored(name: str, value: object) -> object:
    return to_json(value) if name in _JSON and value is not None else value


def _decoded(row: Sequence[Any], encoded: Sequence[int]) -> list[Any]:
    values = list(row)
    for index in encoded:
        if values[index] is not None:
            values[index] = from_json(values[index])
    return values
