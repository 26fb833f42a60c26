"""A proxy before the API that notes when each write was made, and which operations it was about."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from pydantic_core import from_json

_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Request(NamedTuple):
    """What was noted of one request."""

    at: float
    held: frozenset[str]
    """Keys of the operations that it held."""
    answered: frozenset[str]
    """Of those, the keys of those that its reply says something of; in bulk, what was not reached is not."""


class WatchedApi:
    """The proxy; each of its connections has one of its own to the API.

    Args:
        url: The API.
    """

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self.requests: list[Request] = []

    def answers(self, instances: Mapping[str, str]) -> Counter[str]:
        """Count, for each instance, the requests whose reply says something of an operation of it.

        Args:
            instances: The instance of each operation, by key; others are not counted.
        """
        return Counter(
            instance
            for request in self.requests
            for instance in {instances[key] for key in request.answered if key in instances}
        )

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
                at = time.time()
                back.write(head + body)
                reply_head, reply = await _message(there)
                if body:
                    held = _keys(body)
                    self.requests.append(Request(at, held, _answered(held, reply)))
                writer.write(reply_head + reply)
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


def _keys(body: bytes) -> frozenset[str]:
    fields = from_json(body)
    return frozenset(item["idempotency_key"] for item in fields.get("items", [fields]))


def _answered(held: frozenset[str], reply: bytes) -> frozenset[str]:
    try:
        fields = from_json(reply)
    except ValueError:
        return frozenset()
    outputs = fields.get("outputs") if isinstance(fields, dict) else None
    return held & outputs.keys() if isinstance(outputs, dict) else held if len(held) == 1 else frozenset()


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
