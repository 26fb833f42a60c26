"""A sender as a process of its own that says how much memory it came to need.

``python -m tests.support.memory_program agent|worker URL SECONDS``: an agent with instances of its own, or
what a worker has between its broker and the API, with 250 finishes of spans. It prints a JSON object.
"""

import asyncio
import json
import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from prefactor_core import HttpClientConfig, PrefactorCoreClient, PrefactorCoreConfig
from prefactor_core.api.circuit_breaker import CircuitBreaker
from prefactor_core.api.delivery import ApiDelivery
from prefactor_core.api.http import HttpApi
from prefactor_core.execution.retry import RetryPolicy
from prefactor_core.operations import Operation
from prefactor_core.queue.executor import TaskExecutor
from prefactor_core.queue.memory import InMemoryQueue
from tests.client.load import registry
from tests.support.operations import finish_span
from tests.support.processes import status_field

_VERSION: Final = {"name": "memory", "external_identifier": "1"}
_SPANS: Final = 250
_LANES: Final = 10
_AT_ONCE: Final = 4


class _Longest:
    """Measures the longest time for which the event loop stood still."""

    def __init__(self) -> None:
        self.seconds = 0.0

    async def watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(0.005)
            self.seconds = max(self.seconds, loop.time() - before - 0.005)


async def _agent(http: HttpClientConfig, seconds: float) -> int:
    client = PrefactorCoreClient(PrefactorCoreConfig(http_config=http, schema_registry=registry()))
    await client.initialize()
    for _ in range(_LANES):
        async with client.create_agent_instance(agent_version=_VERSION) as instance:
            for _ in range(5):
                async with instance.span("t:outer"):
                    pass
    await client.flush(seconds)
    return (await client.close(timeout=0.1)).delivered


async def _worker(http: HttpClientConfig, seconds: float) -> int:
    queue: InMemoryQueue[Operation] = InMemoryQueue()
    for number in range(_SPANS):
        lane = f"i{number % _LANES}"
        await queue.put(finish_span(lane, f"{lane}-span{number}"))
    async with _executor(queue, http) as executor:
        await queue.flush(seconds)
        return executor.account.settled


@asynccontextmanager
async def _executor(queue: InMemoryQueue[Operation], http: HttpClientConfig) -> AsyncIterator[TaskExecutor]:
    api = HttpApi(http, lambda: "memory@1", connections=_AT_ONCE + 1)
    retry = RetryPolicy(base=0.1, cap=0.5)
    executor = TaskExecutor(
        queue, ApiDelivery(api, CircuitBreaker(api.ping, retry, latch=False)), _AT_ONCE, retry=retry
    )
    executor.start()
    try:
        yield executor
    finally:
        await executor.abandon()
        await api.close()


async def _run(role: str, url: str, seconds: float) -> dict[str, object]:
    http = HttpClientConfig(api_url=url, api_token="test", request_timeout=30, max_retry_delay=0.5)
    longest = _Longest()
    watching = asyncio.create_task(longest.watch())
    before = _mib("VmRSS")
    delivered = await (_agent if role == "agent" else _worker)(http, seconds)
    watching.cancel()
    return {
        "grown_mib": round(_mib("VmHWM") - before),
        "held_ms": round(longest.seconds * 1000),
        "delivered": delivered,
    }


def _mib(name: str) -> float:
    return int(status_field(os.getpid(), name)) / 1024


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    sys.stdout.write(json.dumps(asyncio.run(_run(sys.argv[1], sys.argv[2], float(sys.argv[3])))))
