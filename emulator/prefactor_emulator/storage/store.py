"""SQLite behind the rules. What a reply has acknowledged survives a kill of the process."""

from contextlib import AbstractContextManager
from typing import Any

from pydantic_core import to_json
from typing_extensions import override

from prefactor_emulator.storage.database import Database
from prefactor_emulator.model import (
    Effect,
    Instance,
    JsonObject,
    NewInstance,
    Remembered,
    Span,
    Status,
    Storage,
    VersionKind,
)


class Store(Storage):
    """What the rules have let happen.

    Args:
        database: Where it is kept. Whoever calls a method that writes has begun a transaction.
    """

    def __init__(self, database: Database) -> None:
        self._connection = database.connection
        self._database = database

    def transaction(self) -> AbstractContextManager[None]:
        """Commit what happens inside as a whole, or nothing of it when it raises."""
        return self._database.transaction()

    def savepoint(self) -> AbstractContextManager[None]:
        """Undo what happened inside, and only that, when it raises."""
        return self._database.savepoint()

    @override
    def remembered(self, account: str, key: str) -> Remembered | None:
        row = self._row("SELECT digest, reply FROM keys WHERE account = ? AND key = ?", account, key)
        return None if row is None else Remembered(*row)

    @override
    def remember(self, account: str, key: str, remembered: Remembered) -> None:
        self._connection.execute(
            "INSERT INTO keys VALUES (?, ?, ?, ?)",
            (account, key, remembered.digest, remembered.reply),
        )

    def forget_keys(self) -> None:
        """Let every idempotency key expire."""
        self._connection.execute("DELETE FROM keys")

    @override
    def add_effect(self, effect: Effect) -> None:
        self._connection.execute(
            "INSERT INTO effects (at, account, type, instance_id, span_id, key) VALUES (?, ?, ?, ?, ?, ?)",
            (
                effect.at,
                effect.account,
                effect.type,
                effect.instance_id,
                effect.span_id,
                effect.key,
            ),
        )

    @override
    def version(
        self, account: str, agent: str, kind: VersionKind, identifier: str
    ) -> tuple[int, bytes] | None:
        return self._row(
            "SELECT number, digest FROM versions"
            " WHERE account = ? AND agent = ? AND kind = ? AND identifier = ?",
            account,
            agent,
            kind,
            identifier,
        )

    @override
    def add_version(
        self, account: str, agent: str, kind: VersionKind, content: JsonObject, digest: bytes
    ) -> int:
        cursor = self._connection.execute(
            "INSERT INTO versions (account, agent, kind, identifier, digest, content)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (account, agent, kind, content["external_identifier"], digest, to_json(content)),
        )
        return cursor.lastrowid or 0

    @override
    def add_schema_names(self, version: int, names: frozenset[str]) -> None:
        self._connection.executemany(
            "INSERT OR IGNORE INTO schema_names VALUES (?, ?)", ((version, name) for name in names)
        )

    @override
    def has_schema(self, version: int, name: str) -> bool:
        return self._exists("SELECT 1 FROM schema_names WHERE version = ? AND name = ?", version, name)

    @override
    def instance_taken(self, instance_id: str) -> bool:
        return self._exists("SELECT 1 FROM instances WHERE id = ?", instance_id)

    @override
    def instance(self, account: str, instance_id: str) -> Instance | None:
        row = self._row(
            "SELECT id, status, schema_version, registered_at, started_at, finished_at,"
            " termination_reason FROM instances WHERE id = ? AND account = ?",
            instance_id,
            account,
        )
        return None if row is None else Instance(*row)

    @override
    def add_instance(self, instance: NewInstance) -> None:
        self._connection.execute(
            "INSERT INTO instances (id, account, status, agent_version, schema_version,"
            " registration, registered_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                instance.id,
                instance.account,
                Status.PENDING,
                instance.agent_version,
                instance.schema_version,
                to_json(instance.registration),
                instance.registered_at,
            ),
        )

    @override
    def start_instance(self, instance_id: str, started_at: str) -> None:
        self._connection.execute(
            "UPDATE instances SET status = ?, started_at = ? WHERE id = ?",
            (Status.ACTIVE, started_at, instance_id),
        )

    @override
    def finish_instance(self, instance_id: str, status: str, finished_at: str) -> None:
        self._connection.execute(
            "UPDATE instances SET status = ?, finished_at = ? WHERE id = ?",
            (status, finished_at, instance_id),
        )

    def terminate_instance(self, instance_id: str, reason: str) -> bool:
        """End an instance from the service's side.

        Returns:
            Whether there was such an instance and it was not over yet.
        """
        cursor = self._connection.execute(
            "UPDATE instances SET status = ?, termination_reason = ? WHERE id = ? AND status IN (?, ?)",
            (Status.TERMINATED, reason, instance_id, Status.PENDING, Status.ACTIVE),
        )
        return cursor.rowcount == 1

    @override
    def set_quality(self, instance_id: str, name: str, payload: JsonObject | None) -> None:
        if payload is None:
            self._connection.execute(
                "DELETE FROM qualities WHERE instance_id = ? AND name = ?", (instance_id, name)
            )
            return
        self._connection.execute(
            "INSERT OR REPLACE INTO qualities VALUES (?, ?, ?)",
            (instance_id, name, to_json(payload)),
        )

    @override
    def span_taken(self, span_id: str) -> bool:
        return self._exists("SELECT 1 FROM spans WHERE id = ?", span_id)

    @override
    def span(self, account: str, span_id: str) -> Span | None:
        row = self._row(
            "SELECT s.id, s.instance_id, s.parent_span_id, s.schema_name, s.status, s.started_at,"
            " s.finished_at FROM spans s JOIN instances i ON i.id = s.instance_id"
            " WHERE s.id = ? AND i.account = ?",
            span_id,
            account,
        )
        return None if row is None else Span(*row)

    def find_span(self, span_id: str) -> Span | None:
        """Find a span, whoever owns it."""
        row = self._row(
            "SELECT id, instance_id, parent_span_id, schema_name, status, started_at, finished_at"
            " FROM spans WHERE id = ?",
            span_id,
        )
        return None if row is None else Span(*row)

    @override
    def add_span(self, span: Span, payload: JsonObject, result: JsonObject | None) -> None:
        self._connection.execute(
            "INSERT INTO spans (id, instance_id, parent_span_id, schema_name, status, started_at,"
            " finished_at, payload, result_payload) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                span.id,
                span.instance_id,
                span.parent_span_id,
                span.schema_name,
                span.status,
                span.started_at,
                span.finished_at,
                to_json(payload),
                None if result is None else to_json(result),
            ),
        )

    @override
    def finish_span(self, span_id: str, status: str, finished_at: str, result: JsonObject | None) -> None:
        self._connection.execute(
            "UPDATE spans SET status = ?, finished_at = ?, result_payload = ? WHERE id = ?",
            (status, finished_at, None if result is None else to_json(result), span_id),
        )

    def _row(self, statement: str, *values: str | int) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._connection.execute(statement, values).fetchone()
        return row

    def _exists(self, statement: str, *values: str | int) -> bool:
        return self._connection.execute(statement, values).fetchone() is not None
