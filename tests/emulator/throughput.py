"""How many operations a second the emulator takes through bulk, its client being another process.

`python -m tests.emulator.throughput [OPERATIONS] [ITEMS_A_REQUEST] [CONNECTIONS]`. Half of the operations
create spans with 300 bytes of payload, the others finish them with 300 bytes of result. Requests are built
before the clock starts.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from pydantic_core import to_json

from prefactor_emulator.ids import new_id
from tests.emulator.driver import CREATE, FINISH_SPAN, NOW, EmulatorProcess, bulk_item, span

if TYPE_CHECKING:
    from prefactor_emulator.model import JsonObject

_ROUNDS = 5
_TEXT = "what was said before " * 14


def _bodies(instance_id: str, operations: int, size: int) -> list[bytes]:
    items: list[JsonObject] = []
    for _ in range(operations // 2):
        span_id = new_id()
        over: JsonObject = {"status": "complete", "timestamp": NOW, "result_payload": {"text": _TEXT}}
        payload: JsonObject = {"text": _TEXT}
        items += [
            bulk_item(CREATE, None, span(instance_id, id=span_id, payload=payload), f"{span_id}:create"),
            bulk_item(FINISH_SPAN, span_id, over, f"{span_id}:finish"),
        ]
    return [to_json({"items": items[start : start + size]}) for start in range(0, len(items), size)]


async def _send(url: str, lanes: list[list[bytes]]) -> float:
    headers = {"Authorization": "Bearer token", "Content-Type": "application/json"}
    async with httpx.AsyncClient(base_url=f"{url}/api/v1/", headers=headers, timeout=60) as client:

        async def lane(bodies: list[bytes]) -> None:
            for body in bodies:
                response = await client.post("bulk", content=body)
                assert response.status_code == 200, response.text
                assert b'"error"' not in response.content, response.text

        begin = time.perf_counter()
        await asyncio.gather(*map(lane, lanes))
        return time.perf_counter() - begin


def _main(operations: int = 40_000, size: int = 100, connections: int = 4) -> None:
    rates = []
    with (
        tempfile.TemporaryDirectory() as folder,
        EmulatorProcess("--db", str(Path(folder) / "runs.db")) as emulator,
    ):
        for _ in range(_ROUNDS):
            with emulator.api("token") as api:
                instances = [api.instance() for _ in range(connections)]
            lanes = [_bodies(instance_id, operations // connections, size) for instance_id in instances]
            rates.append(operations / asyncio.run(_send(emulator.url, lanes)))
    low, middle, high = min(rates), statistics.median(rates), max(rates)
    sys.stdout.write(f"{middle:,.0f} operations/s ({low:,.0f} to {high:,.0f}), {size} a request\n")


if __name__ == "__main__":
    _main(*map(int, sys.argv[1:]))
