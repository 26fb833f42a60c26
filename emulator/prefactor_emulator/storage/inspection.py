"""What has happened so far, read back for people, tests and checkers."""

import secrets
import sqlite3
from typing import cast

from pydantic_core import from_json

from prefactor_emulator.model import JsonObject
from prefactor_emulator.storage.database import Database
from prefactor_emulator.storage.records import SpanRecord as Span


class Inspection:
    """Read-only views of everything, of all accounts, without any payload left out.

    Args:
        database: Where it is kept.
    """

    def __init__(self, database: Database) -> None:
        self._connection = database.connection
        self._opened = secrets.token_hex(4)

    def version(self) -> str:
        """Name the present state: as long as nothing is written, the name stays."""
        return f"{self._opened}-{self._connection.total_changes}"

    def instances(self, limit: int, before: int | None = None, status: str | None = None) -> list[JsonObject]:
        """List instances, the newest first, with the number of their spans by status.

        Args:
            limit: How many at most.
            before: Only those that came before this `seq`.
            status: Only those in this state.
        """
        found = self._rows(
            "SELECT i.seq, i.id, i.status, v.content ->> 'name' AS agent_version, i.inserted_at AS registered_at,"
            " i.started_at, i.finished_at, i.termination_reason"
            " FROM instances i JOIN versions v ON v.id = i.agent_version_id"
            " WHERE i.seq < ? AND (? IS NULL OR i.status = ?) ORDER BY i.seq DESC LIMIT ?",
            2**62 if before is None else before,
            status,
            status,
            limit,
        )
        for instance in found:
            counts = self._rows(
                "SELECT status, count(*) AS spans FROM spans WHERE instance_id = ?"
                " GROUP BY status ORDER BY status",
                cast("str", instance["id"]),
            )
            instance["spans"] = {cast("str", row["status"]): row["spans"] for row in counts}
        return found

    def instance_counts(self) -> dict[str, int]:
        """Count the instances in each state."""
        rows = self._rows("SELECT status, count(*) AS instances FROM instances GROUP BY status")
        return {cast("str", row["status"]): cast("int", row["instances"]) for row in rows}

    def instance(self, instance_id: str) -> JsonObject | None:
        """Show one run: how it was registered, its qualities, and its spans as they came."""
        instance = self.run(instance_id)
        if instance is None:
            return None
        spans = self._rows(
            "SELECT id, parent_span_id, schema_name, status, started_at, finished_at, payload,"
            " result_payload FROM spans WHERE instance_id = ? ORDER BY seq",
            instance_id,
        )
        return instance | {"spans": [_with_payloads(span) for span in spans]}

    def run(self, instance_id: str) -> JsonObject | None:
        """Show how an instance was registered and what became of it, without its spans."""
        found = self._rows(
            "SELECT i.id, i.status, i.account, i.inserted_at AS registered_at, i.started_at, i.finished_at,"
            " i.termination_reason, i.registration, v.content AS agent_schema_version"
            " FROM instances i JOIN versions v ON v.id = i.schema_version_id WHERE i.id = ?",
            instance_id,
        )
        if not found:
            return None
        instance = found[0]
        instance["agent_schema_version"] = _json(instance["agent_schema_version"])
        registration = cast("JsonObject", _json(instance.pop("registration")))
        qualities = self._rows(
            "SELECT name, payload FROM qualities WHERE instance_id = ? ORDER BY name", instance_id
        )
        return {
            **registration,
            **instance,
            "quality": {cast("str", row["name"]): _json(row["payload"]) for row in qualities},
        }

    def spans(self, instance_id: str) -> list[Span]:
        """List the spans of a run as they came, without their payloads."""
        rows = self._connection.execute(
            "SELECT id, instance_id, parent_span_id, schema_name, status, started_at, finished_at"
            " FROM spans WHERE instance_id = ? ORDER BY seq",
            (instance_id,),
        )
        return [Span(*row) for row in rows]

    def span(self, span_id: str) -> JsonObject | None:
        """Show one span with its payloads."""
        found = self._rows(
            "SELECT id, instance_id AS agent_instance_id, parent_span_id, schema_name, status, started_at,"
            " finished_at, payload, result_payload FROM spans WHERE id = ?",
            span_id,
        )
        return _with_payloads(found[0]) if found else None

    def effects(self, after: int, limit: int) -> list[JsonObject]:
        """Read on in the log of everything that took place, from behind a sequence number."""
        return self._rows(
            "SELECT seq, at, account, type, instance_id, span_id, key FROM effects"
            " WHERE seq > ? ORDER BY seq LIMIT ?",
            after,
            limit,
        )

    def effect_counts(self) -> JsonObject:
        """Count the effects of each type."""
        rows = self._rows("SELECT type, count(*) AS effects FROM effects GROUP BY type")
        return {cast("str", row["type"]): row["effects"] for row in rows}

    def _rows(self, statement: str, *values: str | int | None) -> list[JsonObject]:
        cursor = self._connection.cursor()
        cursor.row_factory = sqlite3.Row
        return [dict(row) for row in cursor.execute(statement, values)]


def _json(stored: object) -> object:
    return None if stored is None else from_json(cast("bytes", stored))


def _with_payloads(span: JsonObject) -> JsonObject:
    payloads = {name: _json(span[name]) for name in ("payload", "result_payload")}
    return span | payloads
