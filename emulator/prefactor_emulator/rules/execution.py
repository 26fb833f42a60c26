"""Carrying out what is asked: once for each idempotency key, and every effect in the log.

A rule refuses before it writes. So what is refused has left nothing that would have to be undone, and what
a hook has done before stands.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from pydantic_core import from_json, to_json

from prefactor_emulator.model import Identity, JsonObject, OperationType, Refusal, digest_of, invalid, utc_now
from prefactor_emulator.operations import Operation, OperationHook, operation_of_item
from prefactor_emulator.requests import Write
from prefactor_emulator.rules import instances, spans
from prefactor_emulator.rules.call import Call, Done
from prefactor_emulator.rules.details import agent_details
from prefactor_emulator.rules.registration import register
from prefactor_emulator.rules.schemas import SchemaLibrary
from prefactor_emulator.storage.records import AgentRecord, Effect, Remembered
from prefactor_emulator.storage.store import Store

RULES: Final[Mapping[OperationType, Callable[[Call, str, Any], Done]]] = MappingProxyType(
    {
        OperationType.REGISTER_INSTANCE: register,
        OperationType.START_INSTANCE: instances.start,
        OperationType.FINISH_INSTANCE: instances.finish,
        OperationType.TERMINATE_INSTANCE: instances.terminate,
        OperationType.RECORD_QUALITY: instances.record_quality,
        OperationType.CREATE_SPAN: spans.create,
        OperationType.FINISH_SPAN: spans.finish,
    }
)
"""Each takes the circumstances, the id that the operation acts on (none where it makes one), and its body."""


class Execution:
    """The API's rules over a store.

    Args:
        store: Where everything is kept.
        dedup: Whether a repeat is without effect. Without it, every repeat is logged as one more effect,
            so that whoever sends twice is found out.
        strict_schemas: Whether what does not fit the registered schemas is refused, and not only flagged.
        strict_termination: Whether a terminated instance takes no new spans.
    """

    def __init__(
        self,
        store: Store,
        *,
        dedup: bool = True,
        strict_schemas: bool = False,
        strict_termination: bool = False,
    ) -> None:
        self._store = store
        self._dedup = dedup
        self._strict_schemas = strict_schemas
        self._strict_termination = strict_termination
        self._schemas = SchemaLibrary(store)

    def call(self, identity: Identity) -> Call:
        """Note the circumstances of an operation that begins now."""
        strict = (self._strict_schemas, self._strict_termination)
        return Call(self._store, self._schemas, identity, utc_now(), *strict)

    def single(self, identity: Identity, operation: Operation, hooks: Sequence[OperationHook] = ()) -> bytes:
        """Carry out one operation, or answer again what its key stands for.

        Returns:
            The reply's body, as JSON.

        Raises:
            Refusal: A rule or a hook stands against it: it has done nothing, and its key is not spent.
        """
        with self._store.transaction():
            return self._execute(self.call(identity), operation, hooks)

    def bulk(self, identity: Identity, items: Sequence[object], hooks: Sequence[OperationHook] = ()) -> bytes:
        """Carry out operations in order, each for itself, up to the first that is refused.

        Returns:
            The reply's body, as JSON: an output for each up to there.

        Raises:
            Refusal: They cannot be answered by their keys; none of them was done.
        """
        outputs = []
        keyed = _by_key(items)
        call = self.call(identity)
        with self._store.transaction():
            for key, item in keyed:
                try:
                    output = self._execute(call, operation_of_item(item), hooks)
                except Refusal as refusal:
                    outputs.append(to_json(key) + b":" + to_json(refusal.body()))
                    break
                outputs.append(to_json(key) + b":" + output)
        return b'{"status":"success","outputs":{' + b",".join(outputs) + b"}}"

    def _execute(self, call: Call, operation: Operation, hooks: Sequence[OperationHook]) -> bytes:
        key, digest = operation.key, operation.digest()
        known = _known(call, key, digest)
        if known is not None:
            if not self._dedup:
                details = from_json(known)["details"]
                instance_id = details.get("agent_instance_id")
                span_id = details["id"] if instance_id else None
                _log(call, operation, instance_id or details["id"], span_id)
            return known
        for hook in hooks:
            hook(operation, call.instance)
        done = RULES[operation.type](call, operation.target or "", operation.body)
        _log(call, operation, done.instance_id, done.span_id)
        return _remembered(call, key, digest, done.details, done.control)


def manage(call: Call, action: str, body: Write | None, perform: Callable[[], AgentRecord]) -> bytes:
    """Carry out a write to agents, or answer again what its key stands for.

    Args:
        call: Its circumstances.
        action: What is asked, and of which agent.
        body: The body of the request, if it has one.
        perform: Does it, and returns the agent.

    Returns:
        The reply's body, as JSON.
    """
    body = body or Write()
    key = body.idempotency_key
    digest = digest_of([action, body.model_dump(exclude_unset=True, exclude={"idempotency_key"})])
    with call.store.transaction():
        known = _known(call, key, digest)
        return known or _remembered(call, key, digest, agent_details(call.store, perform()), {})


def _log(call: Call, operation: Operation, instance_id: str, span_id: str | None) -> None:
    call.store.add_effect(Effect(call.now, call.account, operation.type, instance_id, span_id, operation.key))


def _known(call: Call, key: str | None, digest: bytes) -> bytes | None:
    remembered = call.store.remembered(call.scope, key) if key else None
    if remembered is None:
        return None
    if remembered.digest == digest:
        return remembered.reply
    raise Refusal(
        422,
        "idempotency_key_reused",
        "this idempotency_key stands for another request; use a new key for a new request",
        {"idempotency_key": ["was used for another request"]},
    )


def _remembered(
    call: Call, key: str | None, digest: bytes, details: JsonObject, control: JsonObject
) -> bytes:
    reply = to_json({"status": "success", "details": details, **control})
    if key:
        call.store.remember(call.scope, key, Remembered(digest, reply))
    return reply


def _by_key(items: Sequence[object]) -> list[tuple[str, JsonObject]]:
    """Check what must hold of a bulk request as a whole: each item can be answered by its key."""
    found: dict[str, JsonObject] = {}
    errors: dict[str, list[str]] = {}
    for index, item in enumerate(items):
        key = item.get("idempotency_key") if isinstance(item, dict) else None
        if not isinstance(item, dict):
            errors[f"items.{index}"] = ["must be a JSON object"]
        elif not isinstance(key, str):
            errors[f"items.{index}.idempotency_key"] = ["is required, as a string"]
        elif key in found:
            errors[f"items.{index}.idempotency_key"] = ["is used twice in this request"]
        else:
            found[key] = item
    if errors:
        raise invalid(errors)
    return list(found.items())
