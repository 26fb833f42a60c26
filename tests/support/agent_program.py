"""An agent as a process of its own: publishes instances with nested spans, and writes down what it put.

``python -m tests.support.agent_program URL PUTS [options]`` prints ``ready`` when its client runs, and a JSON
object at its end: what became of everything, and how long the agent's calls took.
"""

import argparse
import asyncio
import json
import secrets
import time
from pathlib import Path
from typing import IO

from prefactor_core import (
    AgentInstanceHandle,
    Operation,
    PrefactorCoreClient,
    PrefactorCoreConfig,
    SchemaRegistry,
)
from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.plugins import create_queue
from prefactor_core.queue.intake import BufferBounds

_DEPTH = 4
_VERSION = {"name": "agent-program", "external_identifier": "1"}


class RecordingBrokerQueue(BrokerQueue):
    """A queue to a broker that writes down every put that it did not drop."""

    def __init__(self, queue: BrokerQueue, bounds: BufferBounds, puts: IO[str]) -> None:
        super().__init__(queue.broker, bounds)
        self._puts = puts

    def offer(self, item: Operation) -> None:
        dropped = sum(self.dropped.values())
        super().offer(item)
        if sum(self.dropped.values()) == dropped:
            line = {"instance_id": item.instance_id, "type": item.type.value, "key": item.idempotency_key}
            self._puts.write(json.dumps(line) + "\n")


class Agent:
    """Runs instances, and times what its calls cost."""

    def __init__(self, client: PrefactorCoreClient, options: argparse.Namespace) -> None:
        self._client = client
        self._options = options
        self._turns = asyncio.Semaphore(options.tasks)
        self._run = secrets.token_hex(4)  # the identifier of an instance is unique among its agent's
        self.seconds: list[float] = []

    async def run(self) -> None:
        """Run all instances, so many at a time."""
        await asyncio.gather(*(self._instance(number) for number in range(self._options.instances)))

    async def _instance(self, number: int) -> None:
        async with self._turns:
            instance = await self._client.create_agent_instance(
                agent_version=_VERSION, external_identifier=f"instance-{self._run}-{number}"
            )
            await instance.start()
            left = self._options.spans
            while left > 0 or self._goes_on():
                left -= await self._nest(instance, min(_DEPTH, left) if left > 0 else _DEPTH)
                await asyncio.sleep(self._options.pace)
            began = time.perf_counter()
            await instance.finish()
            self.seconds.append(time.perf_counter() - began)

    def _goes_on(self) -> bool:
        until: Path | None = self._options.until
        return until is not None and not until.exists()

    async def _nest(self, instance: AgentInstanceHandle, depth: int) -> int:
        """Open spans inside each other, and return how many."""
        if depth == 0:
            return 0
        context = instance.span(f"level-{depth}", payload={"depth": depth, "text": "x" * self._options.bytes})
        began = time.perf_counter()
        span = await context.__aenter__()
        await span.start()
        self.seconds.append(time.perf_counter() - began)
        inner = await self._nest(instance, depth - 1)
        span.set_result({"inner": inner})
        began = time.perf_counter()
        await context.__aexit__(None, None, None)
        self.seconds.append(time.perf_counter() - began)
        return inner + 1


def _share(seconds: list[float], share: float) -> float:
    return sorted(seconds)[min(len(seconds) - 1, int(len(seconds) * share))]


async def _main(options: argparse.Namespace) -> None:
    schemas = SchemaRegistry()
    for depth in range(1, _DEPTH + 1):
        schemas.register(f"level-{depth}", {"type": "object"})
    config = PrefactorCoreConfig(
        transport_url=options.url,
        schema_registry=schemas,
        buffer_operations=options.buffer,
        close_timeout=options.close_timeout,
    )
    with Path(options.puts).open("w", buffering=1) as puts:  # noqa: ASYNC230 -- whole lines at once: others read it
        made = create_queue(options.url, config)
        assert isinstance(made, BrokerQueue)
        queue = RecordingBrokerQueue(made, BufferBounds(options.buffer, config.buffer_bytes), puts)
        client = PrefactorCoreClient(config, queue)
        await client.initialize()
        print("ready", flush=True)
        agent = Agent(client, options)
        await agent.run()
        summary = await client.close()
    print(
        json.dumps(
            {
                "put": summary.put,
                "delivered": summary.delivered,
                "dropped": summary.dropped,
                "left": summary.left,
                "unconfirmed": summary.unconfirmed,
                "p50_us": round(_share(agent.seconds, 0.5) * 1e6),
                "p99_us": round(_share(agent.seconds, 0.99) * 1e6),
            }
        ),
        flush=True,
    )


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("puts")
    parser.add_argument("--instances", type=int, default=50)
    parser.add_argument("--spans", type=int, default=40)
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--pace", type=float, default=0.0, help="seconds between two nests of spans")
    parser.add_argument("--until", type=Path, help="a file; no instance ends before it is there")
    parser.add_argument("--bytes", type=int, default=20)
    parser.add_argument("--buffer", type=int, default=100_000)
    parser.add_argument("--close-timeout", type=float, default=60.0)
    asyncio.run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
