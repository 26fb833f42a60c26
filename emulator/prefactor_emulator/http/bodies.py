"""Reading requests and writing replies in the API's manner, whoever answers them."""

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias, cast

from pydantic_core import from_json, to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from prefactor_emulator.http.paths import MAX_BODY_BYTES
from prefactor_emulator.model import JsonObject, Refusal
from prefactor_emulator.requests import internal_error

if TYPE_CHECKING:
    from starlette.exceptions import HTTPException

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]

_CODES = {404: "not_found", 405: "method_not_allowed"}

logger = logging.getLogger(__name__)


def json_response(content: bytes | JsonObject, status: int = 200) -> Response:
    """Reply with JSON, built already or to be built."""
    body = content if isinstance(content, bytes) else to_json(content)
    return Response(body, status, media_type="application/json")


def refusal_response(refusal: Refusal) -> Response:
    """Reply with the API's error body."""
    response = json_response(refusal.body(), refusal.status)
    response.headers.update(refusal.headers or {})
    return response


async def on_http_exception(_request: Request, error: Exception) -> Response:
    """Answer unknown routes and methods like everything else."""
    problem = cast("HTTPException", error)
    code = _CODES.get(problem.status_code, "bad_request")
    message = "there is nothing here" if problem.status_code == 404 else problem.detail
    headers = dict(problem.headers or {})
    return refusal_response(Refusal(problem.status_code, code, message, headers=headers))


def answering(handler: Handler) -> Handler:
    """Make a handler answer in every case: refusals, and mistakes of our own, as error bodies."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except Refusal as refusal:
            return refusal_response(refusal)
        except ClientDisconnect:
            return Response()  # nobody is left to read it
        except Exception:
            logger.exception("%s %s failed unexpectedly", request.method, request.url.path)
            return refusal_response(internal_error())

    return answer


async def read_object(request: Request) -> JsonObject:
    """Read a body that must be a JSON object.

    Raises:
        Refusal: It is too large, is not JSON, or is something else than an object.
    """
    body = bytearray()
    too_large = False
    # A body too large is read to its end, and forgotten: many clients read no reply before.
    async for chunk in request.stream():
        too_large = too_large or len(body) + len(chunk) > MAX_BODY_BYTES
        if not too_large:
            body += chunk
    if too_large:
        raise Refusal(413, "payload_too_large", f"a body must be at most {MAX_BODY_BYTES} bytes")
    try:
        value = from_json(bytes(body), allow_inf_nan=False)
    except ValueError:
        raise Refusal(400, "bad_request", "the body is not JSON") from None
    if not isinstance(value, dict):
        raise Refusal(400, "bad_request", "the body must be a JSON object")
    return cast("JsonObject", value)


def query_number(request: Request, name: str, default: int, most: int) -> int:
    """Read a number from the query string.

    Raises:
        Refusal: It is not a number from 0 to the most that is allowed.
    """
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and int(text) <= most):
        complaint = {name: [f"must be a number from 0 to {most}"]}
        raise Refusal(422, "validation_error", f"?{name}= is not acceptable", complaint)
    return int(text)
