"""An HTTP server in the API's place whose successes say nothing, until it is told to make sense again."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Final

from pydantic_core import from_json, to_json

from tests.support.stand_in import StandIn, listening, ok

SENSELESS: Final[dict[str, Callable[[list[str]], object]]] = {
    "null": dict.fromkeys,
    "string": lambda keys: dict.fromkeys(keys, "success"),
    "empty object": lambda keys: {key: {} for key in keys},
    "nothing": lambda keys: {},  # noqa: ARG005 -- none of them is named
}
"""What a bulk reply has for outputs; it is a success all the same."""


class SenselessApi(StandIn):
    """Answers every request with 200.

    Args:
        kind: What is wrong with its replies; see ``SENSELESS``.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._outputs = SENSELESS[kind]
        self.senseless = True
        self.requests = 0
        """Writes that came while its replies made no sense."""
        self.done: list[str] = []
        """Keys of all operations whose success was told as the API tells it."""

    def answer(self, body: bytes) -> Iterator[bytes]:
        """Yield the pieces of a reply."""
        return ok(self._reply(body))

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
    async with listening(api.serve) as url:
        yield api, url
