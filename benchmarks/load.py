"""The load that the benchmarks share: instances with spans, from several tasks at once."""

import time
from typing import Any

from prefactor_core import (
    AgentInstanceHandle,
    HttpClientConfig,
    PrefactorCoreClient,
    PrefactorCoreConfig,
)

SCHEMAS: dict[str, Any] = {
    "external_identifier": "bench-1",
    "span_schemas": {"bench:step": {"type": "object"}},
}
PAYLOAD = {"model": "a-model", "prompt": "what was said before " * 8, "temperature": 0.2, "attempt": 1}
RESULT = {"response": "what was answered to it " * 8, "tokens": {"input": 120, "output": 42}}


def client_for(url: str, **options: Any) -> PrefactorCoreClient:
    """Return a client for the stand-in at ``url``."""
    http = HttpClientConfig(api_url=url, api_token="benchmark")
    return PrefactorCoreClient(PrefactorCoreConfig(http_config=http, **options))


async def new_instance(client: PrefactorCoreClient) -> AgentInstanceHandle:
    """Register and start an instance."""
    instance = await client.create_agent_instance(
        agent_version={"name": "bench", "external_identifier": "1"}, agent_schema_version=SCHEMAS
    )
    await instance.start()
    return instance


async def one_span(instance: AgentInstanceHandle) -> float:
    """Record one span with a payload and a result; return the seconds that the agent spent on it."""
    begin = time.perf_counter()
    async with instance.span("bench:step", payload=PAYLOAD) as span:
        await span.start()
        span.set_result(RESULT)
    return time.perf_counter() - begin
