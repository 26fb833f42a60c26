"""The OpenAPI description of the API as the emulator serves it."""

from typing import Final

from prefactor_emulator.http.paths import API_PREFIX, BULK_PATH, MAX_BODY_BYTES, MAX_ITEMS, WRITE_PATHS
from prefactor_emulator.model import JsonObject, OperationType
from prefactor_emulator.openapi_schemas import SCHEMAS, ref

_INTRODUCTION = f"""\
Writes are idempotent by `idempotency_key`: the same key with the same body is answered with the first reply
and without effect, the same key with another body is refused. Only successes are remembered.

A bulk request carries out its items in order, each for itself, up to the first error. It has at most
{MAX_ITEMS} items and, as every body, {MAX_BODY_BYTES} bytes.

While the emulator is told to misbehave, it may answer anything.
"""

_JSON = "application/json"

_REFUSALS: Final[dict[int, tuple[str, tuple[str, ...]]]] = {
    400: ("The body is not a JSON object.", ("bad_request",)),
    401: ("There is no token, or it is not accepted.", ("unauthorized",)),
    404: ("There is no such instance or span in this account.", ("not_found",)),
    409: ("The id is taken, or the present state does not allow it.", ("conflict", "invalid_action")),
    413: ("The body is too large.", ("payload_too_large",)),
    422: (
        "A field is not acceptable, the key stands for another request, or a version would change.",
        ("validation_error", "idempotency_key_reused", "version_mismatch"),
    ),
    500: ("A mistake of the emulator's own; its log says more.", ("internal_error",)),
}

_WRITES: Final = {
    OperationType.REGISTER_INSTANCE: ("Registration", "InstanceReply", "Register a pending instance"),
    OperationType.START_INSTANCE: ("Start", "InstanceReply", "Move a pending instance to active"),
    OperationType.FINISH_INSTANCE: ("Finish", "InstanceReply", "Move an active instance to its end"),
    OperationType.RECORD_QUALITY: ("Quality", "QualityReply", "Set or remove a quality"),
    OperationType.CREATE_SPAN: ("SpanCreation", "SpanReply", "Create a span of an active instance"),
    OperationType.FINISH_SPAN: ("SpanFinish", "SpanReply", "Move a span to its end, with its result"),
}


def _content(schema: str) -> JsonObject:
    return {_JSON: {"schema": ref(schema)}}


def _refusal(status: int) -> JsonObject:
    description, codes = _REFUSALS[status]
    narrowed: JsonObject = {"allOf": [ref("Error"), {"properties": {"code": {"enum": list(codes)}}}]}
    response: JsonObject = {"description": description, "content": {_JSON: {"schema": narrowed}}}
    if status == 401:
        response["headers"] = {"WWW-Authenticate": {"required": True, "schema": {"const": "Bearer"}}}
    return response


def _operation(name: str, summary: str, reply: str, *refusals: int, request: str | None = None) -> JsonObject:
    responses: JsonObject = {"200": {"description": "Done.", "content": _content(reply)}}
    responses |= {
        str(status): {"$ref": f"#/components/responses/{status}"} for status in (401, *refusals, 500)
    }
    operation: JsonObject = {"operationId": name, "summary": summary, "responses": responses}
    if request is not None:
        operation["requestBody"] = {"required": True, "content": _content(request)}
    return operation


def _write(operation_type: OperationType) -> JsonObject:
    body, reply, summary = _WRITES[operation_type]
    registers = operation_type is OperationType.REGISTER_INSTANCE
    finds = () if registers else (404,)
    changes = () if operation_type is OperationType.RECORD_QUALITY else (409,)
    refusals = (400, *finds, *changes, 413, 422)
    item: JsonObject = {
        "post": _operation(operation_type.name.lower(), summary, reply, *refusals, request=f"{body}Request")
    }
    return _located(item) if "{id}" in WRITE_PATHS[operation_type] else item


def _located(item: JsonObject) -> JsonObject:
    return item | {"parameters": [{"name": "id", "in": "path", "required": True, "schema": ref("Pfid")}]}


OPENAPI: Final[JsonObject] = {
    "openapi": "3.1.0",
    "info": {"title": "Prefactor API, as emulated", "version": "1", "description": _INTRODUCTION},
    "servers": [{"url": "/"}],
    "security": [{"token": []}],
    "paths": {
        f"{API_PREFIX}/ping": {"get": _operation("ping", "Check the token", "PingReply")},
        f"{API_PREFIX}{BULK_PATH}": {
            "post": _operation(
                "bulk", "Carry out many writes in order", "BulkReply", 400, 413, 422, request="BulkRequest"
            )
        },
        f"{API_PREFIX}/agent_instance/{{id}}": _located(
            {"get": _operation("show_instance", "Show an instance", "InstanceReply", 404)}
        ),
        **{API_PREFIX + path: _write(operation_type) for operation_type, path in WRITE_PATHS.items()},
    },
    "components": {
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        "responses": {str(status): _refusal(status) for status in _REFUSALS},
        "schemas": SCHEMAS,
    },
}
