"""A fast stand-in for the API, in a process of its own: it takes everything and answers as the API would.

Run as ``python -m benchmarks.stand_in LATENCY_MS``: prints its port, then serves until its input is closed.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic_core import from_json, to_json

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "


class _Connection(asyncio.Protocol):
    """Just enough of HTTP/1.1 for one client library: requests one at a time, bodies with a length."""

    def __init__(self, latency: float) -> None:
        self._latency = latency
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line[15:])
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        reply = _reply(rest[:length])
        asyncio.get_running_loop().call_later(self._latency, self._send, reply)

    def _send(self, reply: bytes) -> None:
        assert self._transport is not None
        self._transport.write(_HEAD + str(len(reply)).encode() + b"\r\n\r\n" + reply)


def _reply(body: bytes) -> bytes:
    if not body:
        return b'{"status":"success","details":{}}'
    outputs = {
        item["idempotency_key"]: {"status": "success", "details": {"id": item["idempotency_key"][:32]}}
        for item in from_json(body)["items"]
    }
    return to_json({"status": "success", "outputs": outputs})


async def _serve(latency: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(latency), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


@asynccontextmanager
async def stand_in(latency_ms: float) -> AsyncIterator[str]:
    """Start one and yield its URL."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.stand_in",
        str(latency_ms),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        port = int(await process.stdout.readline())
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stdin.close()
        await process.wait()


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1]) / 1000))
