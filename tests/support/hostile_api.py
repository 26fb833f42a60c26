"""An HTTP server in the API's place with replies that are far too large, or that echo large payloads."""

import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Final

from pydantic_core import from_json, to_json

from tests.support.stand_in import OK_JSON, StandIn, listening, ok

_MIB: Final = 2**20
_SPANS_PAYLOAD: Final = 100_000


def _text() -> Iterator[bytes]:
    return ok(b'{"status":"success","text":"' + b"x" * 50_000_000 + b'"}')


def _objects() -> Iterator[bytes]:
    return ok(b'{"status":"success","outputs":{"a":[' + b"{}," * 16_000_000 + b"{}]}}")


def _bomb() -> Iterator[bytes]:
    """A gigabyte of blanks in a megabyte of gzip, with the right checksum."""
    piece = b" " * _MIB
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    deflate.compress(piece)
    deflate.flush(zlib.Z_FULL_FLUSH)
    block = deflate.compress(piece) + deflate.flush(zlib.Z_FULL_FLUSH)
    last = deflate.compress(b"") + deflate.flush()
    check = 0
    for _ in range(1024):
        check = zlib.crc32(piece, check)
    data = gzip.compress(b"")[:10] + block * 1024 + last
    data += check.to_bytes(4, "little") + (1024 * _MIB).to_bytes(4, "little")
    yield OK_JSON + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(data)
    yield data


def _endless() -> Iterator[bytes]:
    yield OK_JSON + b"Transfer-Encoding: chunked\r\n\r\n"
    while True:
        yield b"10000\r\n" + b" " * 0x10000 + b"\r\n"


HOSTILE: Final[dict[str, Callable[[], Iterator[bytes]]]] = {
    "50 MB of text": _text,
    "50 MB of objects": _objects,
    "a gzip bomb of 1 GB": _bomb,
    "endless": _endless,
}
"""Replies to everything, pings included."""


def _structured(size: int) -> dict[str, object]:
    one = {"role": "user", "content": "what is the weather like?", "score": 0.25, "tags": ["a", "b"]}
    return {"messages": [one] * (size // len(json.dumps(one)))}


ECHOED: Final[dict[str, dict[str, object]]] = {
    "text": {"text": "x" * _SPANS_PAYLOAD},
    "structured": _structured(_SPANS_PAYLOAD),
}
"""Payloads of spans, which the replies to their finishes echo."""


class LargeApi(StandIn):
    """Answers every request with 200.

    Args:
        reply: Makes what every request is answered, if that is always the same.
        payload: Else what the reply to every operation echoes.
    """

    def __init__(
        self, reply: Callable[[], Iterator[bytes]] | None, payload: dict[str, object] | None = None
    ) -> None:
        super().__init__()
        self._reply = reply
        self._output = to_json({"status": "success", "details": {"payload": payload or {}}})
        self.requests: list[int] = []
        """Of each write: the operations in it."""

    def answer(self, body: bytes) -> Iterator[bytes]:
        """Yield the pieces of a reply."""
        if self._reply is not None:
            return self._reply()
        if not body:
            return ok(b'{"status":"success","details":{}}')
        items = from_json(body).get("items")
        self.requests.append(len(items or [None]))
        if items is None:
            return ok(self._output)
        outputs = b",".join(to_json(item["idempotency_key"]) + b":" + self._output for item in items)
        return ok(b'{"status":"success","outputs":{' + outputs + b"}}")


@asynccontextmanager
async def large_api(
    reply: Callable[[], Iterator[bytes]] | None = None, payload: dict[str, object] | None = None
) -> AsyncIterator[tuple[LargeApi, str]]:
    """Start one; yield it and its URL."""
    api = LargeApi(reply, payload)
    async with listening(api.serve) as url:
        yield api, url
