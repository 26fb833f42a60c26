"""A proxy before the API that notes when each request was made, and which instances and spans it named."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from pydantic_core import from_json

_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_IDS_IN_PATH: Final = re.compile(r"/(?:agent_instance|agent_spans)/([0-9a-z]{32})")


class Request(NamedTuple):
    """What was noted of one request."""

    at: float
    ids: frozenset[str]
    """Of all instances and spans that its operations name; a span's parent is not among them."""


class WatchedApi:
    """The proxy; each of its connections has one of its own to the API.

    Args:
        url: The API.
    """

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self.requests: list[Request] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass requests on, one at a time, until either side ends."""
        try:
            there, back = await asyncio.open_connection(self._target.hostname, self._target.port)
        except OSError:
            writer.close()
            return
        try:
            while True:
                head, body = await _message(reader)
                self.requests.append(Request(time.time(), _ids(head, body)))
                back.write(head + body)
                writer.write(b"".join(await _message(there)))
                await writer.drain()
        except (OSError, EOFError):
            pass  # either side has ended, which ends the other
        finally:
            for end in (writer, back):
                end.close()


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read a request or a reply: its head and its body."""
    head = await reader.readuntil(_HEAD_END)
    found = _LENGTH.search(head)
    return head, await reader.readexactly(int(found[1])) if found else b""


def _ids(head: bytes, body: bytes) -> frozenset[str]:
    ids = set(_IDS_IN_PATH.findall(head.split(b" ", 2)[1].decode()))
    if body:
        fields = from_json(body)
        for item in fields.get("items", [fields]):
            details = item.get("details") or item
            named = (item.get("agent_instance_id"), item.get("agent_span_id"), details.get("id"))
            ids.update(one for one in (*named, details.get("agent_instance_id")) if one is not None)
    return frozenset(ids)


@asynccontextmanager
async def watched_api(url: str) -> AsyncIterator[tuple[WatchedApi, str]]:
    """Put one before the API at ``url``, and yield it and its own URL."""
    api = WatchedApi(url)
    # The largest body is read in one piece; only heads are bounded.
    server = await asyncio.start_server(api.serve, "127.0.0.1", 0, limit=2**20)
    try:
        yield api, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
