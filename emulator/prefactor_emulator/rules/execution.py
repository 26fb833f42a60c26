"""Carrying out what is asked: once for each idempotency key, and every effect in the log.

A rule refuses before it writes. So what is refused has left nothing that would have to be undone, and what
a hook has done before stands.
"""

from collections.abc import Callable, Sequence
from typing import cast

from pydantic_core import from_json, to_json

from prefactor_emulator.model import Identity, JsonObject, Refusal, digest_of, invalid, utc_now
from prefactor_emulator.operations import Operation, OperationHook, operation_of_item
from prefactor_emulator.requests import (
    CreateSpan,
    FinishInstance,
    FinishSpan,
    RecordQuality,
    RegisterInstance,
    StartInstance,
    TerminateInstance,
    Write,
)
from prefactor_emulator.rules.call import Call, Done
from prefactor_emulator.rules.details import agent_details
from prefactor_emulator.rules.instances import (
    finish_instance,
    record_quality,
    start_instance,
    terminate_instance,
)
from prefactor_emulator.rules.registration import register
from prefactor_emulator.rules.schemas import SchemaLibrary
from prefactor_emulator.rules.spans import create_span, finish_span
from prefactor_emulator.storage.records import AgentRecord, Effect, Remembered
from prefactor_emulator.storage.store import Store


class Execution:
    """The API's rules over a store.

    Args:
        store: Where everything is kept.
        clock: Tells the present.
        dedup: Whether a repeat is without effect. Without it, every repeat is logged as one more effect,
            so that whoever sends twice is found out.
        strict_schemas: Whether what does not fit the registered schemas is refused, and not only flagged.
    """

    def __init__(
        self,
        store: Store,
        clock: Callable[[], str] = utc_now,
        *,
        dedup: bool = True,
        strict_schemas: bool = False,
    ) -> None:
        self._store = store
        self._clock = clock
        self._dedup = dedup
        self._strict_schemas = strict_schemas
        self._schemas = SchemaLibrary(store)

    def call(self, identity: Identity) -> Call:
        """Note the circumstances of an operation that begins now."""
        return Call(self._store, self._schemas, identity, self._clock(), self._strict_schemas)

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

    def manage(
        self, call: Call, action: str, body: Write | None, perform: Callable[[], AgentRecord]
    ) -> bytes:
        """Carry out a write to agents, or answer again what its key stands for.

        Args:
            call: Its circumstances.
            action: What is asked, and of which agent.
            body: The body of the request, if it has one.
            perform: Does it, and returns the agent.
        """
        body = body or Write()
        key = body.idempotency_key
        digest = digest_of([action, body.model_dump(exclude_unset=True, exclude={"idempotency_key"})])
        with self._store.transaction():
            known = self._known(call.account, key, digest)
            if known is not None:
                return known
            details = agent_details(self._store, perform())
            return self._remembered(call.account, key, digest, _reply(details))

    def _execute(self, call: Call, operation: Operation, hooks: Sequence[OperationHook]) -> bytes:
        if call.identity.deployment is not None and isinstance(operation.body, RecordQuality):
            raise Refusal(401, "unauthorized", "a deployment's token records no qualities")
        key, digest = operation.key, operation.digest()
        known = self._known(call.account, key, digest)
        if known is not None:
            if not self._dedup:
                self._store.add_effect(_effect_again(call, operation, known))
            return known
        for hook in hooks:
            hook(operation, call.account)
        done = _perform(call, operation)
        effect = Effect(call.now, call.account, operation.type, done.instance_id, done.span_id, key)
        self._store.add_effect(effect)
        control = {"control": {"terminate": True, "reason": done.reason}} if done.terminated else {}
        return self._remembered(call.account, key, digest, _reply(done.details, **control))

    def _known(self, account: str, key: str | None, digest: bytes) -> bytes | None:
        remembered = self._store.remembered(account, key) if key else None
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

    def _remembered(self, account: str, key: str | None, digest: bytes, reply: bytes) -> bytes:
        if key:
            self._store.remember(account, key, Remembered(digest, reply))
        return reply


def internal_error() -> Refusal:
    """Build the reply to a request that met a mistake of the emulator's own."""
    message = "the emulator failed on this request; its log on stderr says where"
    return Refusal(500, "internal_error", message)


def _reply(details: JsonObject, **more: object) -> bytes:
    return to_json({"status": "success", "details": details, **more})


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


def _perform(call: Call, operation: Operation) -> Done:
    target = operation.target or ""
    match operation.body:
        case RegisterInstance() as body:
            return register(call, body)
        case StartInstance() as body:
            return start_instance(call, target, body)
        case FinishInstance() as body:
            return finish_instance(call, target, body)
        case TerminateInstance() as body:
            return terminate_instance(call, target, body)
        case RecordQuality() as body:
            return record_quality(call, target, body)
        case CreateSpan() as body:
            return create_span(call, body)
        case FinishSpan() as body:
            return finish_span(call, target, body)
    raise TypeError(f"no rule for {operation.type}")


def _effect_again(call: Call, operation: Operation, reply: bytes) -> Effect:
    details = cast("dict[str, str]", from_json(reply)["details"])
    instance_id, span_id = details.get("agent_instance_id"), details["id"]
    if instance_id is None:
        return Effect(call.now, call.account, operation.type, span_id, None, operation.key)
    return Effect(call.now, call.account, operation.type, instance_id, span_id, operation.key)
