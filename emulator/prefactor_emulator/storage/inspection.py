"""What has happened so far, read back for people, tests and checkers."""

import asyncio
import secrets
import sqlite3
from typing import Final, NamedTuple, cast

from pydantic_core import from_json, to_json

from prefactor_emulator.model import JsonObject
from prefactor_emulator.storage.database import Database

_FITS: Final = """
    (:search = '' OR :search IN (i.id, i.external_identifier) OR i.agent_id IN (
        SELECT id FROM agents
        WHERE :search IN (id, external_identifier) OR instr(lower(name), lower(:search))
    ) OR i.agent_version_id IN (
        SELECT id FROM versions
        WHERE kind = 'agent_version' AND instr(lower(content ->> 'name'), lower(:search))
    ) OR EXISTS (
        SELECT 1 FROM spans WHERE instance_id = i.id AND schema_name IN (
            -- Each name once, by one step in the index and not by reading all of it.
            WITH RECURSIVE names (name) AS (
                SELECT min(schema_name) FROM spans
                UNION ALL
                SELECT (SELECT min(schema_name) FROM spans WHERE schema_name > name)
                FROM names WHERE name IS NOT NULL
            )
            SELECT name FROM names WHERE instr(lower(name), lower(:search))
        )
    ))
"""
_LIST: Final = """
    SELECT i.seq, i.id, i.status, i.agent_id, a.name AS agent_name, v.content ->> 'name' AS agent_version,
        v.identifier AS agent_version_identifier, i.inserted_at,
        i.started_at, i.finished_at, i.termination_reason
    FROM instances i JOIN agents a ON a.id = i.agent_id JOIN versions v ON v.id = i.agent_version_id
    WHERE i.seq < coalesce(:before, 4611686018427387904) AND :status IN ('', i.status) AND {fits}
    ORDER BY i.seq DESC LIMIT :limit
""".replace("{fits}", _FITS)
_COUNTS: Final = """
    SELECT status, count(*) AS instances FROM instances i WHERE {fits} GROUP BY status
""".replace("{fits}", _FITS)
_SPAN_COUNTS: Final = """
    SELECT status, count(*) FROM spans WHERE instance_id = ? GROUP BY status ORDER BY status
"""
_FLAGGED: Final = "SELECT count(*) FROM spans WHERE instance_id = ? AND flags IS NOT NULL"
_RUN: Final = """
    SELECT i.id, i.account, i.agent_id, a.name AS agent_name, i.environment_id, i.agent_deployment_id,
        i.agent_version_id, v.identifier AS agent_version_identifier, i.status, i.external_identifier,
        i.purpose, i.inserted_at, i.updated_at, i.started_at, i.finished_at,
        i.termination_reason, i.registration, s.content AS agent_schema_version
    FROM instances i JOIN agents a ON a.id = i.agent_id JOIN versions v ON v.id = i.agent_version_id
        JOIN versions s ON s.id = i.schema_version_id
    WHERE i.id = :id
"""
_LINES: Final = """
    SELECT id, parent_span_id, schema_name, schema_title, status, summary, flags IS NOT NULL, started_at,
        finished_at
    FROM spans WHERE seq IN (SELECT value FROM json_each(?)) ORDER BY seq
"""
_SPANS: Final = """
    SELECT id, instance_id AS agent_instance_id, parent_span_id, schema_name, schema_title, status, payload,
        result_payload, sensitive_encoding, summary, flags, inserted_at, started_at, finished_at
    FROM spans
"""
_PIECE: Final = 1000


class SpanLine(NamedTuple):
    """A span as one line shows it, without what it carries."""

    id: str
    parent_span_id: str | None
    schema_name: str
    schema_title: str | None
    status: str
    summary: str | None
    flagged: int
    started_at: str | None
    finished_at: str | None


class Inspection:
    """Read-only views of everything that is kept, of all accounts.

    Args:
        database: Where it is kept.
    """

    def __init__(self, database: Database) -> None:
        self._connection = database.connection
        self._opened = secrets.token_hex(4)

    def version(self) -> str:
        """Name the present state: as long as nothing is written, the name stays."""
        (others,) = self._connection.execute("PRAGMA data_version").fetchone()  # changes of other processes
        return f"{self._opened}-{self._connection.total_changes}-{others}"

    def instances(
        self,
        limit: int,
        before: int | None = None,
        status: str | None = None,
        search: str = "",
    ) -> list[JsonObject]:
        """List instances, the newest first, without their spans.

        Args:
            limit: How many at most.
            before: Only those that came before this `seq`.
            status: Only those in this state.
            search: Only those of which this is the id, the agent's id, or a part of the name of the agent,
                of its version, or of a schema of one of their spans.
        """
        return self._rows(_LIST, limit=limit, before=before, status=status or "", search=search)

    def count_spans(self, instance: JsonObject) -> None:
        """Add to an instance the number of its spans in each state, and of those that are flagged."""
        found = (instance["id"],)
        instance["spans"] = dict(self._connection.execute(_SPAN_COUNTS, found).fetchall())
        (instance["flagged"],) = self._connection.execute(_FLAGGED, found).fetchone()

    def instance_counts(self, search: str = "") -> dict[str, int]:
        """Count the instances in each state."""
        return dict(self._connection.execute(_COUNTS, {"search": search}).fetchall())

    def instance(self, instance_id: str) -> JsonObject | None:
        """Show one run: how it was registered, its qualities, and its spans as they came."""
        run = self.run(instance_id)
        if run is None:
            return None
        registration = cast("JsonObject", run.pop("registration"))
        spans = self._rows(f"{_SPANS} WHERE instance_id = :id ORDER BY seq", id=instance_id)
        return registration | run | {"spans": list(map(_read, spans))}

    def run(self, instance_id: str) -> JsonObject | None:
        """Show what became of an instance, and its registration apart from that; without its spans."""
        found = self._rows(_RUN, id=instance_id)
        if not found:
            return None
        run = _read(found[0])
        schemas = run.pop("agent_schema_version")
        registration = cast("JsonObject", run["registration"]) | {"agent_schema_version": schemas}
        rows = self._rows("SELECT * FROM qualities WHERE instance_id = :id ORDER BY name", id=instance_id)
        qualities = list(map(_read, rows))
        return run | {
            "registration": registration,
            "quality": {cast("str", each["name"]): each["payload"] for each in qualities},
            "quality_summaries": {cast("str", each["name"]): each["summary"] for each in qualities},
            "quality_flags": {cast("str", each["name"]): each["flags"] for each in qualities},
        }

    async def lines(self, instance_id: str) -> list[SpanLine]:
        """List the spans of a run as they came, read in pieces, between which others get their turn."""
        find = "SELECT seq FROM spans WHERE instance_id = ? ORDER BY seq"
        numbers = [number for (number,) in self._connection.execute(find, (instance_id,))]
        lines: list[SpanLine] = []
        for start in range(0, len(numbers), _PIECE):
            piece = to_json(numbers[start : start + _PIECE])
            lines += map(SpanLine._make, self._connection.execute(_LINES, (piece,)))
            await asyncio.sleep(0)
        return lines

    def span(self, span_id: str) -> JsonObject | None:
        """Show one span with its payloads."""
        found = self._rows(f"{_SPANS} WHERE id = :id", id=span_id)
        return _read(found[0]) if found else None

    def effects(self, after: int, limit: int) -> list[JsonObject]:
        """Read on in the log of everything that took place, from behind a sequence number."""
        return self._rows(
            "SELECT seq, at, account, type, instance_id, span_id, key FROM effects"
            " WHERE seq > :after ORDER BY seq LIMIT :limit",
            after=after,
            limit=limit,
        )

    def effect_counts(self) -> JsonObject:
        """Count the effects of each type."""
        return dict(self._connection.execute("SELECT type, count(*) FROM effects GROUP BY type").fetchall())

    def _rows(self, statement: str, **values: str | int | None) -> list[JsonObject]:
        cursor = self._connection.cursor()
        cursor.row_factory = sqlite3.Row
        return [dict(row) for row in cursor.execute(statement, values)]


def _read(row: JsonObject) -> JsonObject:
    """Read the JSON that is in a row: nothing else is stored as bytes."""
    return {name: from_json(value) if isinstance(value, bytes) else value for name, value in row.items()}
