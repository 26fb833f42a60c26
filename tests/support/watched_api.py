"""A proxy before the API that notes when each write was made, and which operations it was about."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

from pydantic_core import from_json

from tests.support.stand_in import listening, read_message


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
                head, body = await read_message(reader)
                at = time.time()
                back.write(head + body)
                reply_head, reply = await read_message(there)
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
    async with listening(api.serve) as own_url:
        yield api, own_url
