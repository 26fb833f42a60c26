"""How many operations a second one emulator process takes in bulk requests, over HTTP, into its file.

``python -m benchmarks.emulator_bulk``: spans created and finished, 250 operations a request, from two
connections, each span with a payload of 500 bytes and a result of 300. "schemas": what they hold is checked
against registered schemas. "templates": summaries are rendered as well, twice a span. Alternated, five
rounds, medians. Every reply is looked at: all operations have succeeded.
"""

import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

import httpx

from prefactor_core.identifiers import PfidFactory
from tests.support.emulator import emulator_process

_ROUNDS: Final = 5
_CONNECTIONS: Final = 2
_REQUESTS: Final = 60
_PAIRS: Final = 125
_NOW: Final = "2026-03-01T10:00:00Z"
_SCHEMA: Final = {"type": "object", "properties": {"question": {"type": "string"}}}
_new_id = PfidFactory().new


def _beginning(instance_id: str, *, templates: bool) -> bytes:
    kind = {"name": "plain", "params_schema": _SCHEMA, "result_schema": {"type": "object"}}
    if templates:
        kind["template"] = "{{ question | truncate: 40 }} {{ answer | truncate: 40 }}"
    register = {
        "_type": "agent_instances/register",
        "idempotency_key": f"{instance_id}:register",
        "id": instance_id,
        "agent_version": {"name": "benchmark"},
        "agent_schema_version": {"span_type_schemas": [kind]},
    }
    start = {
        "_type": "agent_instances/start",
        "idempotency_key": f"{instance_id}:start",
        "agent_instance_id": instance_id,
    }
    return json.dumps({"items": [register, start]}).encode()


def _spans(instance_id: str) -> bytes:
    items: list[dict[str, object]] = []
    for _ in range(_PAIRS):
        span_id = _new_id()
        details: dict[str, object] = {
            "id": span_id,
            "agent_instance_id": instance_id,
            "schema_name": "plain",
            "status": "active",
            "payload": {"question": "q" * 500},
            "started_at": _NOW,
        }
        create: dict[str, object] = {
            "_type": "agent_spans/create",
            "idempotency_key": f"{span_id}:create",
            "details": details,
        }
        finish: dict[str, object] = {
            "_type": "agent_spans/finish",
            "idempotency_key": f"{span_id}:finish",
            "agent_span_id": span_id,
            "status": "complete",
            "timestamp": _NOW,
            "result_payload": {"answer": "a" * 300},
        }
        items += [create, finish]
    return json.dumps({"items": items}).encode()


async def _send(client: httpx.AsyncClient, bodies: list[bytes]) -> None:
    for body in bodies:
        reply = await client.post("/api/v1/bulk", content=body)
        assert reply.status_code == 200, reply.text
        assert b'"status":"error"' not in reply.content, reply.text


async def _rate(*, templates: bool) -> float:
    """Return the operations a second of one round, with a fresh emulator."""
    ids = [_new_id() for _ in range(_CONNECTIONS)]
    work = [[_spans(each) for _ in range(_REQUESTS)] for each in ids]
    with tempfile.TemporaryDirectory() as folder:
        async with (
            emulator_process(Path(folder)) as emulator,
            httpx.AsyncClient(
                base_url=emulator.url, headers={"Authorization": "Bearer t"}, timeout=60
            ) as client,
        ):
            await _send(client, [_beginning(each, templates=templates) for each in ids])
            began = time.perf_counter()
            await asyncio.gather(*(_send(client, bodies) for bodies in work))
            return _CONNECTIONS * _REQUESTS * _PAIRS * 2 / (time.perf_counter() - began)


async def _main() -> None:
    rates: dict[str, list[float]] = {"schemas": [], "templates": []}
    for _ in range(_ROUNDS):
        for name, found in rates.items():
            found.append(await _rate(templates=name == "templates"))
    for name, found in rates.items():
        print(
            f"{name}: {statistics.median(found):,.0f} operations/s ({min(found):,.0f} to {max(found):,.0f})"
        )


if __name__ == "__main__":
    asyncio.run(_main())
