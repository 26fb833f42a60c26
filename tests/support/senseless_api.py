"""An HTTP server in the API's place whose successes say nothing, until it is told to make sense again."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from pydantic_core import from_json, to_json

SENSELESS: Final[dict[str, Callable[[list[str]], object]]] = {
    "null": dict.fromkeys,
    "string": lambda keys: dict.fromkeys(keys, "success"),
    "empty object": lambda keys: {key: {} for key in keys},
    "nothing": lambda keys: {},  # noqa: ARG005 -- none of them is named
}
"""What a bulk reply has for outputs; it is a success all the same."""

_LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class SenselessApi:
    """Answers every request with 200.

    Args:
        kind: What is wrong with its replies; see ``SENSELESS``.
    """

    def __init__(self, kind: str) -> None:
        self._outputs = SENSELESS[kind]
        self.senseless = True
        self.requests = 0
        """Writes that came while its replies made no sense."""
        self.done: list[str] = []
        """Keys of all operations whose success was told as the API tells it."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                found = _LENGTH.search(head)
                body = await reader.readexactly(int(found[1])) if found else b""
                reply = self._reply(body)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ")
                writer.write(str(len(reply)).encode() + b"\r\n\r\n" + reply)
                await writer.drain()
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    def _reply(self, body: bytes) -> bytes:
        if not body:
            return b'{"status":"success","details":{}}'  # a ping: the service is well
        fields = from_json(body)
        items = fields.get("items")
        keys = [item["idempotency_key"] for item in items or [fields]]
        if self.senseless:
            self.requests += 1
            return (
                b"null" if items is None else to_json({"status": "success", "outputs": self._outputs(keys)})
            )
        self.done += keys
        if items is None:
            return b'{"status":"success","details":{}}'
        done = {key: {"status": "success", "details": {}} for key in keys}
        return to_json({"status": "success", "outputs": done})


@asynccontextmanager
async def senseless_api(kind: str) -> AsyncIterator[tuple[SenselessApi, str]]:
    """Start one; yield it and its URL."""
    api = SenselessApi(kind)
    server = await asyncio.start_server(api.serve, "127.0.0.1", 0)
    try:
        yield api, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
