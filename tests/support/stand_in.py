"""The least of an HTTP server, for what stands in the API's place or before it."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

_LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)

OK_JSON: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
"""The head of a reply, but for what says how long its body is."""

Serve: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def read_message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read a request or a reply: its head and its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    found = _LENGTH.search(head)
    return head, await reader.readexactly(int(found[1])) if found else b""


def ok(body: bytes) -> Iterator[bytes]:
    """Yield a reply in pieces."""
    yield OK_JSON + b"Content-Length: %d\r\n\r\n" % len(body)
    yield body


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[str]:
    """Have connections served, and yield the URL."""
    # The largest body is read in one piece; only heads are bounded.
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**20)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


class StandIn:
    """Answers every request, one after the other of each connection."""

    def __init__(self) -> None:
        self.connections = 0

    def answer(self, body: bytes) -> Iterator[bytes]:
        """Yield the pieces of the reply to a request, a ping where it has no body."""
        raise NotImplementedError

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        self.connections += 1
        try:
            while True:
                _, body = await read_message(reader)
                for piece in self.answer(body):
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
        except (OSError, EOFError):
            pass
        finally:
            writer.close()
