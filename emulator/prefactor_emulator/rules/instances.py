"""The rules of instances that are registered: how they start, end, and are judged."""

from prefactor_emulator.model import Refusal, Status, invalid_action, not_found
from prefactor_emulator.requests import FinishInstance, RecordQuality, StartInstance, TerminateInstance
from prefactor_emulator.rules.call import Call, Done
from prefactor_emulator.rules.details import instance_details
from prefactor_emulator.storage.records import InstanceRecord, Quality


def start(call: Call, instance_id: str, body: StartInstance) -> Done:
    """Move a pending instance to active."""
    instance = find_instance(call, instance_id)
    if instance.status != Status.PENDING:
        raise invalid_action(f"the instance is {instance.status}: only a pending one can start")
    return _update(call, instance, status=Status.ACTIVE, started_at=body.timestamp or call.now)


def finish(call: Call, instance_id: str, body: FinishInstance) -> Done:
    """Move an active instance to a final state."""
    instance = find_instance(call, instance_id)
    if instance.status != Status.ACTIVE:
        raise invalid_action(f"the instance is {instance.status}: only an active one can finish")
    status = body.status or Status.COMPLETE
    return _update(call, instance, status=status, finished_at=body.timestamp or call.now)


def terminate(call: Call, instance_id: str, body: TerminateInstance) -> Done:
    """Stop an active instance for good, and cancel its spans in flight."""
    instance = find_instance(call, instance_id)
    if instance.status != Status.ACTIVE:
        raise invalid_action(f"the instance is {instance.status}: only an active one can be terminated")
    call.store.terminate_instance(instance_id, body.reason, call.now)
    return Done(instance_details(call.store, find_instance(call, instance_id)), instance_id)


def record_quality(call: Call, instance_id: str, body: RecordQuality) -> Done:
    """Set or remove a quality."""
    if call.identity.deployment is not None:
        raise Refusal(401, "unauthorized", "a deployment's token records no qualities")
    # Assumed: a quality can be recorded in any state, also when all is over.
    instance = find_instance(call, instance_id)
    if body.payload is None:
        call.store.remove_quality(instance_id, body.name)
    else:
        values = (body.name, body.payload)
        found = call.assess(instance, "payload", lambda each: each.quality(*values))
        quality = Quality(body.name, body.payload, found.summary, found.flags)
        call.store.set_quality(instance_id, quality)
    return _update(call, instance)


def find_instance(call: Call, instance_id: str) -> InstanceRecord:
    """Find an instance of this account.

    Raises:
        Refusal: There is none.
    """
    instance = call.instance(instance_id)
    if instance is None:
        raise not_found(f"agent instance {instance_id}")
    return instance


def _update(call: Call, instance: InstanceRecord, **changes: str) -> Done:
    updated = call.store.update(instance, updated_at=call.now, **changes)
    return Done(instance_details(call.store, updated), instance.id)
