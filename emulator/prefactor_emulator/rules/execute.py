"""The API's rules, operation by operation: what each needs, changes, and is refused for.

Pure in the sense that matters: nothing here knows of HTTP, SQLite or a clock.
"""

from collections.abc import Sequence

from pydantic_core import from_json, to_json

from prefactor_emulator.rules.instances import (
    Done,
    finish_instance,
    instance_details,
    record_quality,
    start_instance,
)
from prefactor_emulator.model import (
    Effect,
    Operation,
    OperationHook,
    OperationType,
    Refusal,
    Remembered,
    Storage,
)
from prefactor_emulator.rules.registration import register
from prefactor_emulator.rules.spans import create_span, finish_span


def execute(
    storage: Storage,
    account: str,
    operation: Operation,
    now: str,
    hooks: Sequence[OperationHook] = (),
    *,
    dedup: bool = True,
) -> bytes:
    """Carry out one operation, or answer again what its key stands for.

    Call it inside a transaction that an exception undoes.

    Args:
        storage: What is known so far.
        account: Whose operation it is.
        operation: What to do.
        now: The present, for what the caller did not date.
        hooks: What else may stand in its way.
        dedup: Whether a repeat is without effect. Without it, every repeat is logged as one more effect,
            so that whoever sends twice is found out.

    Returns:
        The reply's body, as JSON.

    Raises:
        Refusal: A rule stands against it, and its key is not spent.
    """
    for hook in hooks:
        hook(operation)
    digest = operation.digest()
    remembered = storage.remembered(account, operation.key)
    if remembered is not None:
        if remembered.digest == digest:
            if not dedup:
                storage.add_effect(_effect_again(now, account, operation, remembered))
            return remembered.reply
        raise Refusal(
            422,
            "idempotency_key_reused",
            "this idempotency_key stands for another request; use a new key for a new request",
            {"idempotency_key": ["was used for another request"]},
        )
    done = _perform(storage, account, operation, now)
    reply = to_json(done.reply())
    storage.remember(account, operation.key, Remembered(digest, reply))
    storage.add_effect(Effect(now, account, operation.type, done.instance.id, done.span_id, operation.key))
    return reply


def _effect_again(now: str, account: str, operation: Operation, remembered: Remembered) -> Effect:
    details = from_json(remembered.reply)["details"]
    of_span = operation.type in {OperationType.CREATE_SPAN, OperationType.FINISH_SPAN}
    instance_id, span_id = (details["agent_instance_id"], details["id"]) if of_span else (details["id"], None)
    return Effect(now, account, operation.type, instance_id, span_id, operation.key)


def _perform(storage: Storage, account: str, operation: Operation, now: str) -> Done:
    match operation.type:
        case OperationType.REGISTER_INSTANCE:
            instance = register(storage, account, operation, now)
            return Done(instance_details(instance), instance)
        case OperationType.START_INSTANCE:
            return start_instance(storage, account, operation)
        case OperationType.FINISH_INSTANCE:
            return finish_instance(storage, account, operation)
        case OperationType.RECORD_QUALITY:
            return record_quality(storage, account, operation)
        case OperationType.CREATE_SPAN:
            return create_span(storage, account, operation, now)
        case OperationType.FINISH_SPAN:
            return finish_span(storage, account, operation, now)
