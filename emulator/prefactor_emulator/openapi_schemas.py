"""What the API's bodies look like, as JSON Schema: the components of the OpenAPI description."""

from typing import Final

from prefactor_emulator.http.paths import MAX_ITEMS
from prefactor_emulator.model import FINAL_STATUSES, SPAN_STATUSES, JsonObject, OperationType, Status
from prefactor_emulator.rules.registration import PURPOSES


def ref(name: str) -> JsonObject:
    """Point to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: JsonObject, optional: JsonObject | None = None, **more: object) -> JsonObject:
    """Describe an object that may have further fields."""
    return {"type": "object", "required": list(required), "properties": required | (optional or {}), **more}


def _exactly(properties: JsonObject, optional: JsonObject | None = None) -> JsonObject:
    """Describe an object that has no further fields."""
    return _object(properties, optional, additionalProperties=False)


def _or_null(schema: JsonObject) -> JsonObject:
    return {"anyOf": [schema, {"type": "null"}]}


def _with(schema: JsonObject, required: JsonObject) -> JsonObject:
    return {"allOf": [schema, _object(required)]}


_TEXT: Final[JsonObject] = {"type": "string", "minLength": 1}
_FREE: Final[JsonObject] = {"type": "object"}
_KEYED: Final[JsonObject] = {"idempotency_key": ref("IdempotencyKey")}
_SUCCESS: Final[JsonObject] = {"const": "success"}
_TIMES: Final[JsonObject] = {
    "started_at": _or_null(ref("Timestamp")),
    "finished_at": _or_null(ref("Timestamp")),
}

_NAMED_SCHEMAS: Final[JsonObject] = {"type": "object", "additionalProperties": _FREE}
_SPAN_TYPE: Final = _object({"name": _TEXT, "params_schema": _FREE}, {"result_schema": _or_null(_FREE)})
_QUALITY_TYPE: Final = _object({"name": _TEXT, "schema": _FREE})

_INSTANCE: Final[JsonObject] = {
    "id": ref("Pfid"),
    "status": {"enum": list(Status)},
    "registered_at": ref("Timestamp"),
    **_TIMES,
    "termination_reason": {"type": ["string", "null"]},
}

_REQUESTS: Final[JsonObject] = {
    "Registration": _object(
        {"agent_version": ref("AgentVersion"), "agent_schema_version": ref("AgentSchemaVersion")},
        {
            "id": _or_null(ref("Pfid")),
            "agent_id": _or_null(ref("Pfid")),
            "environment_id": _or_null(ref("Pfid")),
            "external_identifier": _or_null(_TEXT),
            "purpose": _or_null({"enum": list(PURPOSES)}),
            "update_current_version": {"type": ["boolean", "null"]},
        },
    ),
    "Start": _object({"timestamp": ref("Timestamp")}),
    "Finish": _object({"status": ref("FinalStatus"), "timestamp": ref("Timestamp")}),
    "Quality": _object(
        {"name": _TEXT, "payload": _or_null(_FREE)},
        description="A payload of null removes the quality.",
    ),
    "SpanCreation": _object({"details": ref("NewSpan")}),
    "SpanFinish": {
        "anyOf": [
            _object(
                {"status": ref("FinalStatus"), "timestamp": ref("Timestamp")},
                {"result_payload": _or_null(_FREE)},
                **{"not": {"required": ["details"]}},
            ),
            _object(
                {
                    "details": _object(
                        {},
                        {"status": _or_null(ref("FinalStatus")), "timestamp": _or_null(ref("Timestamp"))},
                    )
                },
                deprecated=True,
                description="Accepted, but the result in it is not kept.",
            ),
        ]
    },
}

_BULK_ITEMS: Final = {
    OperationType.REGISTER_INSTANCE: ("Registration", None),
    OperationType.START_INSTANCE: ("Start", "agent_instance_id"),
    OperationType.FINISH_INSTANCE: ("Finish", "agent_instance_id"),
    OperationType.RECORD_QUALITY: ("Quality", "agent_instance_id"),
    OperationType.CREATE_SPAN: ("SpanCreation", None),
    OperationType.FINISH_SPAN: ("SpanFinish", "agent_span_id"),
}


def _bulk_item(operation_type: OperationType) -> JsonObject:
    body, target = _BULK_ITEMS[operation_type]
    fields: JsonObject = {"_type": {"const": operation_type}, **_KEYED}
    return _with(ref(body), fields | ({target: ref("Pfid")} if target else {}))


SCHEMAS: Final[JsonObject] = {
    "Pfid": {
        "type": "string",
        "pattern": "^[0-7][0-9a-hjkmnp-tv-z]{31}$",
        "description": "48 bits of milliseconds, 30 bits of partition in 32, 80 random bits, in base32.",
    },
    "Timestamp": {
        "type": "string",
        "format": "date-time",
        "description": "ISO 8601, with an offset from UTC.",
    },
    "IdempotencyKey": {"type": "string", "minLength": 8, "maxLength": 64},
    "FinalStatus": {"enum": list(FINAL_STATUSES)},
    "AgentVersion": _object(
        {"name": _TEXT, "external_identifier": _TEXT},
        {"description": {}, "runtime_environment": _or_null(_FREE)},
    ),
    "AgentSchemaVersion": _object(
        {"external_identifier": _TEXT},
        {
            "span_schemas": _or_null(_NAMED_SCHEMAS),
            "span_result_schemas": _or_null(_NAMED_SCHEMAS),
            "span_type_schemas": _or_null({"type": "array", "items": _SPAN_TYPE}),
            "quality_schemas": _or_null({"type": "array", "items": _QUALITY_TYPE}),
        },
    ),
    "NewSpan": {
        **_object(
            {
                "agent_instance_id": ref("Pfid"),
                "schema_name": _TEXT,
                "status": {"enum": list(SPAN_STATUSES)},
                "payload": _FREE,
            },
            {
                "id": _or_null(ref("Pfid")),
                "parent_span_id": _or_null(ref("Pfid")),
                **_TIMES,
                "result_payload": _or_null(_FREE),
            },
        ),
        "if": {"properties": {"status": {"enum": [Status.PENDING, Status.ACTIVE]}}},
        "then": {"properties": {"result_payload": {"type": "null"}}},
    },
    **_REQUESTS,
    **{f"{name}Request": _with(ref(name), _KEYED) for name in _REQUESTS},
    "BulkRequest": _object(
        {
            "items": {
                "type": "array",
                "maxItems": MAX_ITEMS,
                "items": {
                    "type": "object",
                    "required": ["idempotency_key"],
                    "properties": {"idempotency_key": {"type": "string"}},
                    "description": "Each acceptable item is as one of BulkItem; others are answered with"
                    " an error under their keys. The keys differ within a request.",
                },
            }
        }
    ),
    "BulkItem": {"oneOf": [_bulk_item(operation_type) for operation_type in OperationType]},
    "Instance": _exactly(_INSTANCE),
    "Span": _exactly(
        {
            "id": ref("Pfid"),
            "agent_instance_id": ref("Pfid"),
            "parent_span_id": _or_null(ref("Pfid")),
            "schema_name": _TEXT,
            "status": {"enum": list(SPAN_STATUSES)},
            **_TIMES,
        }
    ),
    "Control": _exactly({"terminate": {"const": True}, "reason": {"type": "string"}}),
    "PingReply": _exactly({"status": _SUCCESS, "details": _exactly({})}),
    "InstanceReply": _exactly({"status": _SUCCESS, "details": ref("Instance")}),
    "QualityReply": _exactly({"status": _SUCCESS, "details": _exactly(_INSTANCE | {"quality": _TEXT})}),
    "SpanReply": _exactly({"status": _SUCCESS, "details": ref("Span")}, {"control": ref("Control")}),
    "Error": _exactly(
        {"status": {"const": "error"}, "code": _TEXT, "message": _TEXT},
        {
            "errors": {
                "type": "object",
                "minProperties": 1,
                "additionalProperties": {"type": "array", "minItems": 1, "items": _TEXT},
            }
        },
    ),
    "BulkReply": _exactly(
        {
            "status": _SUCCESS,
            "outputs": {
                "type": "object",
                "description": "By idempotency key, up to the first error.",
                "additionalProperties": {
                    "oneOf": [ref(name) for name in ("InstanceReply", "QualityReply", "SpanReply", "Error")]
                },
            },
        }
    ),
}
