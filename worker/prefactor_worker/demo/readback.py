"""Reading back over HTTP what an emulator holds: the traces, and the log of what took place."""

import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import httpx

_TIMEOUT: Final = httpx.Timeout(20.0)
_PAGE: Final = 10_000


class ReadbackError(Exception):
    """The emulator did not answer as it should."""


@dataclass(slots=True)
class TraceSpan:
    """A span as the emulator holds it.

    Attributes:
        id: Its id.
        parent_id: The span that it is part of, if any.
        schema_name: Its type.
        status: Where it stands.
        seconds: From its start to its finish, if it has both.
        payload: What went in.
        result: What came out, if anything did.
        children: Its parts, in the order of their creation.
    """

    id: str
    parent_id: str | None
    schema_name: str
    status: str
    seconds: float | None
    payload: dict[str, Any]
    result: dict[str, Any] | None
    children: "list[TraceSpan]" = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Trace:
    """An agent instance as the emulator holds it.

    Attributes:
        instance_id: Its id.
        status: Where it stands.
        seconds: From its start to its finish, if it has both.
        spans: The outermost spans.
    """

    instance_id: str
    status: str
    seconds: float | None
    spans: list[TraceSpan]


@dataclass(frozen=True, slots=True)
class Effect:
    """Something that took place at the emulator.

    Attributes:
        type: The kind of write, as bulk requests name it.
        instance_id: The instance that it was about.
        span_id: The span that it was about, if it was about one.
    """

    type: str
    instance_id: str
    span_id: str | None


class EmulatorReader:
    """Reads from an emulator.

    Args:
        http: With the emulator's URL as its base.
    """

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def requests_served(self) -> int | None:
        """Return how many API requests it has served; ``None`` if this is no emulator, or nobody at all."""
        served = (await self._stats()).get("requests")
        return served if isinstance(served, int) else None

    async def effects_logged(self) -> int | None:
        """Return how many effects it has logged; ``None`` if it does not say now."""
        counts = (await self._stats()).get("effects")
        return sum(counts.values()) if isinstance(counts, dict) else None

    async def trace(self, instance_id: str) -> Trace | None:
        """Return an instance with its spans; ``None`` if it was never registered.

        Raises:
            ReadbackError: No such answer came.
        """
        found = await self._read(f"/emulator/instances/{instance_id}")
        if found is None:
            return None
        spans = [_span(entry) for entry in found["spans"]]
        return Trace(
            instance_id=found["id"],
            status=found["status"],
            seconds=_seconds(found),
            spans=_nested(spans),
        )

    async def effects(self, instance_ids: Iterable[str]) -> list[Effect]:
        """Return everything that took place about some instances, in its order.

        Raises:
            ReadbackError: No such answer came.
        """
        wanted = frozenset(instance_ids)
        effects: list[Effect] = []
        after = 0
        while True:
            page = await self._read(f"/emulator/effects?after={after}&limit={_PAGE}")
            entries = page["effects"] if page else []
            if not entries:
                return effects
            after = entries[-1]["seq"]
            effects += [
                Effect(entry["type"], entry["instance_id"], entry["span_id"])
                for entry in entries
                if entry["instance_id"] in wanted
            ]

    async def _stats(self) -> dict[str, Any]:
        try:
            response = await self._http.get("/emulator/stats")
            body = response.json()
        except (httpx.HTTPError, ValueError):
            return {}
        return body if response.is_success and isinstance(body, dict) else {}

    async def _read(self, path: str) -> dict[str, Any] | None:
        try:
            response = await self._http.get(path)
            if response.status_code == 404:
                return None
            response.raise_for_status()
            body = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise ReadbackError(f"GET {path}: {str(error) or type(error).__name__}") from error
        if not isinstance(body, dict):
            raise ReadbackError(f"GET {path}: expected a JSON object")
        return body


@contextlib.asynccontextmanager
async def emulator_reader(url: str) -> AsyncIterator[EmulatorReader]:
    """Read from the emulator at a URL for the length of an ``async with``."""
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT) as http:
        yield EmulatorReader(http)


def _span(entry: dict[str, Any]) -> TraceSpan:
    return TraceSpan(
        id=entry["id"],
        parent_id=entry["parent_span_id"],
        schema_name=entry["schema_name"],
        status=entry["status"],
        seconds=_seconds(entry),
        payload=entry["payload"],
        result=entry["result_payload"],
    )


def _nested(spans: list[TraceSpan]) -> list[TraceSpan]:
    known = {span.id: span for span in spans}
    roots: list[TraceSpan] = []
    for span in spans:
        parent = known.get(span.parent_id) if span.parent_id else None
        (roots if parent is None else parent.children).append(span)
    return roots


def _seconds(entry: dict[str, Any]) -> float | None:
    started, finished = entry["started_at"], entry["finished_at"]
    if started is None or finished is None:
        return None
    return (datetime.fromisoformat(finished) - datetime.fromisoformat(started)).total_seconds()
