"""A batch: 1,000 documents, each an agent instance, twenty of them at work at any time.

Run it beside an emulator::

    prefactor-emulator &
    python examples/batch.py
"""

import asyncio
import os
import time
from datetime import UTC, datetime

from prefactor_core import HttpClientConfig, PrefactorCoreClient, PrefactorCoreConfig, SchemaRegistry

DOCUMENTS = 1_000
AT_ONCE = 20
VERSION = {"name": "batch", "external_identifier": "batch-1.0"}


def configuration() -> PrefactorCoreConfig:
    """Say how to reach the API, and what the spans look like."""
    schemas = SchemaRegistry()
    schemas.register("batch:classify", {"type": "object", "properties": {"words": {"type": "integer"}}})
    return PrefactorCoreConfig(
        http_config=HttpClientConfig(
            api_url=os.environ.get("PREFACTOR_API_URL", "http://127.0.0.1:8700"),
            api_token=os.environ.get("PREFACTOR_API_TOKEN", "dev"),
        ),
        schema_registry=schemas,
    )


async def classify(client: PrefactorCoreClient, batch: str, number: int) -> None:
    """Work on one document. Every tenth cannot be read, which ends its instance, and no other."""
    # An identifier of one's own makes a document's run easy to find again; an agent uses each only once.
    identifier = f"{batch}/document-{number}"
    run = client.create_agent_instance(agent_version=VERSION, external_identifier=identifier)
    async with run as instance:
        await instance.start()
        async with instance.span("batch:classify", payload={"words": 100 + number}) as span:
            await asyncio.sleep(0.001)  # a model at work
            if number % 10 == 0:
                raise ValueError(f"document {number} is empty")
            span.set_result({"label": "letter" if number % 2 else "invoice"})


async def main() -> None:
    """Work through all documents, and say what was recorded."""
    client = PrefactorCoreClient(configuration())
    await client.initialize()
    waiting = iter(range(1, DOCUMENTS + 1))
    batch = datetime.now(UTC).isoformat(timespec="milliseconds")
    unreadable = 0

    async def worker() -> None:
        nonlocal unreadable
        for number in waiting:  # shared by all workers: each takes the next one
            try:
                await classify(client, batch, number)
            except ValueError:
                unreadable += 1

    began = time.perf_counter()
    async with asyncio.TaskGroup() as workers:
        for _ in range(AT_ONCE):
            workers.create_task(worker())
    print(f"{DOCUMENTS} documents, {unreadable} unreadable, in {time.perf_counter() - began:.1f} s")
    # Nothing so far has waited for the API; this does, until everything is delivered.
    summary = await client.close(timeout=60)
    print(summary)


if __name__ == "__main__":
    asyncio.run(main())
