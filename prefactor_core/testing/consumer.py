"""A consumer in a process of its own, for tests that kill it or freeze it.

    python -m prefactor_core.testing.consumer URL '{"handle": 5, "die_on": [], "reject": [KEY], "workers": 1}'

It says what it does in lines of JSON, ``{"event": "handling", "key": ..., "maybe_sent": ...}`` first of all
for each operation, and obeys two words on its standard input: ``go`` and ``stop``.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from prefactor_core.execution.handler import ONE_ITEM, BatchLimits
from prefactor_core.execution.outcome import SETTLED, Dead, Outcome
from prefactor_core.plugins import create_queue
from prefactor_core.queue.executor import TaskExecutor
from prefactor_core.testing.operations import REJECTED, key_of
from prefactor_core.transport import Delivery, Operation, PrefactorCoreConfig


def say(event: str, **more: object) -> None:
    """Print one line, at once."""
    sys.stdout.write(json.dumps({"event": event, **more}) + "\n")
    sys.stdout.flush()


class Handler:
    """Handles operations as it was told; ``processes.worker`` says how."""

    limits: BatchLimits = ONE_ITEM

    def __init__(self, handle: int | None, die_on: Sequence[str], reject: Sequence[str]) -> None:
        self._left = handle
        self._die_on = die_on
        self._reject = reject
        self.gate = asyncio.Event()

    async def handle(self, deliveries: Sequence[Delivery[Operation]]) -> list[Outcome]:
        """Handle one operation, or wait with it for ``go``."""
        (delivery,) = deliveries
        key = key_of(delivery.item)
        say("handling", key=key, maybe_sent=delivery.maybe_sent)
        if key in self._die_on:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._left == 0:
            await self.gate.wait()
        elif self._left is not None:
            self._left -= 1
        say("handled", key=key)
        return [Dead(REJECTED) if key in self._reject else SETTLED]


async def consume(url: str, *, workers: int, **told: Any) -> None:
    """Consume until ``stop`` or the end of the input."""
    handler = Handler(**told)
    queue = create_queue(url, PrefactorCoreConfig())
    executor = TaskExecutor(queue, handler, num_workers=workers)
    executor.start()
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    async for line in commands:
        if line.strip() == b"stop":
            break
        handler.gate.set()
    # Cleanly: what is being handled ends, unless it waits for a word that does not come any more.
    await executor.stop(5.0 if handler.gate.is_set() else 0.2, drain=False)
    await queue.disconnect()
    say("ended", **asdict(executor.account), prefetched=executor.prefetched)


if __name__ == "__main__":
    asyncio.run(consume(sys.argv[1], **json.loads(sys.argv[2])))
