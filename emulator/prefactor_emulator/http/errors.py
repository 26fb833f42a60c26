"""Answering what went wrong with the API's error body, whoever noticed it."""

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from prefactor_emulator.model import JsonObject, Refusal, invalid
from prefactor_emulator.operations import complaints
from prefactor_emulator.replies import Failure

_CODES = {404: "not_found", 405: "method_not_allowed"}
_MEANINGS = {
    400: "The body is not a JSON object.",
    401: "There is no token, it is not accepted, or it is a deployment's and this is not for those.",
    403: "The host is not the emulator's, or a page from another origin asks.",
    404: "There is no such thing in this account.",
    409: "The id is taken, or the present state does not allow it.",
    413: "The body is too large.",
    422: "A field is not acceptable, the key stands for another request, or a version would change.",
    500: "A mistake of the emulator's own; its log says more.",
}


def internal_error() -> Refusal:
    """Build the reply to a request that met a mistake of the emulator's own."""
    message = "the emulator failed on this request; its log on stderr says where"
    return Refusal(500, "internal_error", message)


def json_response(content: bytes | JsonObject, status: int = 200) -> Response:
    """Reply with JSON, built already or to be built."""
    body = content if isinstance(content, bytes) else to_json(content)
    return Response(body, status, media_type="application/json")


def success(details: JsonObject) -> Response:
    """Reply with what was asked for."""
    return json_response({"status": "success", "details": details})


def refusal_response(refusal: Refusal) -> Response:
    """Reply with the API's error body."""
    response = json_response(refusal.body(), refusal.status)
    response.headers.update(refusal.headers or {})
    return response


def refusals(*statuses: int) -> dict[int | str, dict[str, object]]:
    """Describe the refusals that a route may answer with."""
    return {
        status: {"model": Failure, "description": _MEANINGS[status]}
        for status in (401, 403, *statuses, 422, 500)
    }


def answer_errors(app: FastAPI) -> None:
    """Have an application answer refusals, unknown routes and mistakes of its own like everything else."""

    @app.exception_handler(Refusal)
    async def on_refusal(_request: Request, refusal: Refusal) -> Response:
        return refusal_response(refusal)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_request: Request, error: RequestValidationError) -> Response:
        details = error.errors()
        if any(each["loc"] == ("body",) for each in details):
            return refusal_response(Refusal(400, "bad_request", "the body must be a JSON object"))
        return refusal_response(invalid(complaints(details, skip=1)))

    @app.exception_handler(HTTPException)
    async def on_http_exception(_request: Request, problem: HTTPException) -> Response:
        code = _CODES.get(problem.status_code, "bad_request")
        message = "there is nothing here" if problem.status_code == 404 else problem.detail
        headers = dict(problem.headers or {})
        return refusal_response(Refusal(problem.status_code, code, message, headers=headers))
