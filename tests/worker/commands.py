"""`prefactor-worker`'s commands as processes, and brokers with something in them to look at."""

import asyncio
import http.server
import json
import os
import pty
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from prefactor_core import PrefactorCoreConfig
from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.operations import Operation
from prefactor_core.plugins import create_queue
from prefactor_core.queue.base import DeadLetter

ROOT = Path(__file__).parents[2]
PARTITIONS = 4
REASON = "HTTP 422 validation_error (payload)"
REPLY = f"{REASON}: it quotes 'a secret of the reply'"
AWAY = "redis://me:secret@127.0.0.1:1/0"
"""A broker that is not there."""
RUN = {"PREFACTOR_TRANSPORT_URL": AWAY, "PREFACTOR_API_TOKEN": "secret-token", "PREFACTOR_METRICS_PORT": "0"}
"""Variables that `run` can do with."""
_SECONDS = 120.0


@dataclass(frozen=True)
class Done:
    """What a command has done."""

    status: int
    output: str
    errors: str

    @property
    def document(self) -> Any:
        """Its output as JSON."""
        return json.loads(self.output)


def _environment(more: dict[str, str]) -> dict[str, str]:
    path = [str(ROOT / part) for part in (".", "worker", "transports")]
    path.append(os.environ.get("PYTHONPATH", ""))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFACTOR_")}
    return clean | {"PYTHONPATH": os.pathsep.join(filter(None, path)), "COLUMNS": "120", **more}


class Watch:
    """A command that goes on until it ends, or is told to stop."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def look(self) -> dict[str, Any]:
        """Return the next line of JSON."""
        assert self.process.stdout is not None
        async with asyncio.timeout(_SECONDS):
            line = await self.process.stdout.readline()
        found: dict[str, Any] = json.loads(line)
        return found

    async def ended(self) -> Done:
        """Wait for its end, and return the rest of what it has said."""
        async with asyncio.timeout(_SECONDS):
            output, errors = await self.process.communicate()
        assert self.process.returncode is not None
        return Done(self.process.returncode, (output or b"").decode(), errors.decode())

    async def stop(self, number: int) -> Done:
        """Send it a signal, and wait for its end."""
        self.process.send_signal(number)
        return await self.ended()


@asynccontextmanager
async def watching(
    *arguments: str, stdin: int | None = None, stdout: int | None = None, **variables: str
) -> AsyncIterator[Watch]:
    """Start `prefactor-worker`, at a terminal where ``stdin`` or ``stdout`` is one, and end it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "prefactor_worker", *arguments),
        stdin=asyncio.subprocess.DEVNULL if stdin is None else stdin,
        stdout=asyncio.subprocess.PIPE if stdout is None else stdout,
        stderr=asyncio.subprocess.PIPE,
        env=_environment(variables),
    )
    try:
        yield Watch(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def command(*arguments: str, answer: str | None = None, **variables: str) -> Done:
    """Run `prefactor-worker` to its end; with an ``answer`` somebody at a terminal types it."""
    ours, theirs = pty.openpty() if answer is not None else (None, None)
    try:
        async with watching(*arguments, stdin=theirs, stdout=None, **variables) as running:
            if ours is not None:
                os.write(ours, f"{answer}\n".encode())
            return await running.ended()
    finally:
        for end in (ours, theirs):
            if end is not None:
                os.close(end)


@contextmanager
def web_page(status: HTTPStatus) -> Iterator[int]:
    """Serve a page to every client, and yield the port."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@asynccontextmanager
async def open_queue(url: str) -> AsyncIterator[BrokerQueue]:
    """Open a queue of this process's own."""
    queue = create_queue(url, PrefactorCoreConfig(transport_url=url))
    assert isinstance(queue, BrokerQueue)
    try:
        yield queue
    finally:
        await queue.close()
        await queue.disconnect()


async def publish(queue: BrokerQueue, operations: Sequence[Operation]) -> None:
    """Put operations, and wait until the broker has them."""
    for operation in operations:
        await queue.put(operation)
    assert await queue.flush(_SECONDS)


async def dead_letter(queue: BrokerQueue, operations: Sequence[Operation], reason: str = REASON) -> None:
    """Have operations dead-lettered, each as if the API had rejected it."""
    await publish(queue, operations)
    left = len(operations)
    async with asyncio.timeout(_SECONDS):
        while left:
            got = await queue.receive(100, 1 << 20)
            lost = await queue.dead_letter([(one, DeadLetter(one.item, reason, 1, REPLY)) for one in got])
            left -= len(got) - len(lost)
