"""Reading bodies as the API does: JSON objects of a bounded size, whatever their content type says."""

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from typing_extensions import override

from prefactor_emulator.http.errors import internal_error
from prefactor_emulator.http.paths import MAX_BODY_BYTES
from prefactor_emulator.model import JsonObject, Refusal

logger = logging.getLogger(__name__)


class JsonRoute(APIRoute):
    """A route whose requests have JSON bodies, or none."""

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                content = await _body_of(request)
            except ClientDisconnect:
                return Response()  # nobody is left to read it
            try:
                return await handler(_Read(request, content))
            except (HTTPException, RequestValidationError, Refusal):
                raise  # answered by the application
            except Exception:
                logger.exception("%s %s failed unexpectedly", request.method, request.url.path)
                raise internal_error() from None

        return handle


class _Read(Request):
    """A request whose body has been read."""

    def __init__(self, request: Request, content: bytes) -> None:
        headers = [header for header in request.scope["headers"] if header[0] != b"content-type"]
        scope = {**request.scope, "headers": [*headers, (b"content-type", b"application/json")]}
        super().__init__(scope, request.receive)
        self._content = content
        self._value = _object(content) if content else None

    @override
    async def body(self) -> bytes:
        return self._content

    @override
    async def json(self) -> JsonObject | None:
        return self._value


async def _body_of(request: Request) -> bytes:
    body = bytearray()
    too_large = False
    # A body too large is read to its end, and forgotten: many clients read no reply before.
    async for chunk in request.stream():
        too_large = too_large or len(body) + len(chunk) > MAX_BODY_BYTES
        if not too_large:
            body += chunk
    if too_large:
        raise Refusal(413, "payload_too_large", f"a body must be at most {MAX_BODY_BYTES} bytes")
    return bytes(body)


def _object(content: bytes) -> JsonObject:
    try:
        value = from_json(content, allow_inf_nan=False)
    except ValueError:
        raise Refusal(400, "bad_request", "the body is not JSON") from None
    if not isinstance(value, dict):
        raise Refusal(400, "bad_request", "the body must be a JSON object")
    return value
