"""The load that the benchmarks share: instances with spans, from several tasks at once."""

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


VERSION = {"name": "bench", "external_identifier": "1"}


def config_for(url: str, **options: Any) -> PrefactorCoreConfig:
    """Return what a client needs that sends to the API at ``url``, or publishes to the broker there."""
    if url.startswith("http"):
        options["http_config"] = HttpClientConfig(api_url=url, api_token="benchmark")
    else:
        options["transport_url"] = url
    return PrefactorCoreConfig(**options)


def client_for(url: str, **options: Any) -> PrefactorCoreClient:
    """Return a client with the configuration of ``config_for``."""
    return PrefactorCoreClient(config_for(url, **options))


async def new_instance(client: PrefactorCoreClient) -> AgentInstanceHandle:
    """Register and start an instance."""
    instance = await client.create_agent_instance(agent_version=VERSION, agent_schema_version=SCHEMAS)
    await instance.start()
    return instance


async def one_span(instance: AgentInstanceHandle) -> None:
    """Record one span with a payload and a result."""
    async with instance.span("bench:step", payload=PAYLOAD) as span:
        await span.start()
        span.set_result(RESULT)
