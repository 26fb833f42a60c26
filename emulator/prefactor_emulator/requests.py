"""From request bodies to operations, and the bulk request."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol, cast

from pydantic_core import to_json

from prefactor_emulator.http.paths import MAX_ITEMS
from prefactor_emulator.fields import LIST, Complaints, Fields, invalid
from prefactor_emulator.model import (
    JsonObject,
    Operation,
    OperationHook,
    OperationType,
    Refusal,
    Storage,
)
from prefactor_emulator.rules.execute import execute

KEY_LENGTH: Final = range(8, 65)

_INSTANCE_TARGET: Final = "agent_instance_id"
_SPAN_TARGET: Final = "agent_span_id"

logger = logging.getLogger(__name__)


class Journal(Storage, Protocol):
    """Storage in which single items of a request can be undone."""

    def savepoint(self) -> AbstractContextManager[None]:
        """Undo what happened inside, and only that, when it raises."""


def operation_from_request(operation_type: OperationType, target: str | None, body: JsonObject) -> Operation:
    """Read a single request.

    Raises:
        Refusal: It has no acceptable idempotency key.
    """
    fields = dict(body)
    key = _checked_key(fields.pop("idempotency_key", None))
    return Operation(operation_type, key, target, fields)


def operation_from_item(item: JsonObject) -> Operation:
    """Read one item of a bulk request: the same operation as a single request's.

    Raises:
        Refusal: Its key or its `_type` is not acceptable.
    """
    fields = dict(item)
    key = _checked_key(fields.pop("idempotency_key", None))
    named = fields.pop("_type", None)
    try:
        operation_type = OperationType(cast("str", named))
    except ValueError:
        known = ", ".join(OperationType)
        raise Refusal(
            422,
            "unknown_type",
            "this _type is unknown",
            {"_type": [f"must be one of {known}"]},
        ) from None
    target = None
    if operation_type is OperationType.FINISH_SPAN:
        target = fields.pop(_SPAN_TARGET, None)
    elif operation_type not in {OperationType.REGISTER_INSTANCE, OperationType.CREATE_SPAN}:
        target = fields.pop(_INSTANCE_TARGET, None)
    return Operation(operation_type, key, target, fields)


def execute_bulk(
    storage: Journal,
    account: str,
    body: JsonObject,
    clock: Callable[[], str],
    hooks: Sequence[OperationHook] = (),
    *,
    dedup: bool = True,
) -> bytes:
    """Carry out a bulk request inside one transaction, each item under its own savepoint.

    Returns:
        The reply's body, as JSON: an output for every item up to the first error.

    Raises:
        Refusal: The request is not a bulk request; none of it was done.
    """
    outputs = []
    for key, item in _checked_items(body):
        try:
            with storage.savepoint():
                operation = operation_from_item(item)
                reply = execute(storage, account, operation, clock(), hooks, dedup=dedup)
        except Refusal as refusal:
            outputs.append(to_json(key) + b":" + to_json(refusal.body()))
            break
        except Exception:
            logger.exception("a bulk item failed unexpectedly; the items before it stand")
            outputs.append(to_json(key) + b":" + to_json(internal_error().body()))
            break
        outputs.append(to_json(key) + b":" + reply)
    return b'{"status":"success","outputs":{' + b",".join(outputs) + b"}}"


def internal_error() -> Refusal:
    """Build the reply to a request that met a mistake of the emulator's own."""
    message = "the emulator failed on this request; its log on stderr says where"
    return Refusal(500, "internal_error", message)


def _checked_key(key: object) -> str:
    if not isinstance(key, str):
        raise invalid({"idempotency_key": ["is required, as a string"]})
    if len(key) not in KEY_LENGTH:
        limits = f"{KEY_LENGTH.start} to {KEY_LENGTH.stop - 1}"
        raise invalid({"idempotency_key": [f"must have {limits} characters"]})
    return key


def _checked_items(body: JsonObject) -> list[tuple[str, JsonObject]]:
    """Check what must hold of a bulk request as a whole: each item can be answered by its key."""
    complaints = Complaints()
    items = Fields(body, complaints).required("items", LIST)
    if len(items) > MAX_ITEMS:
        complaints.add("items", f"must be at most {MAX_ITEMS}, not {len(items)}")
    found: dict[str, JsonObject] = {}
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            complaints.add(f"items.{index}", "must be a JSON object")
            continue
        key = item.get("idempotency_key")
        if not isinstance(key, str):
            complaints.add(f"items.{index}.idempotency_key", "is required, as a string")
        elif key in found:
            complaints.add(f"items.{index}.idempotency_key", "is used twice in this request")
        else:
            found[key] = cast("JsonObject", item)
    complaints.refuse_if_any()
    return list(found.items())
