"""The rules of instances that are registered: how they start, finish, and are judged."""

from dataclasses import dataclass
from typing import cast

from prefactor_emulator.fields import OBJECT, PFID, TEXT, TIMESTAMP, Complaints, Fields, one_of
from prefactor_emulator.model import (
    FINAL_STATUSES,
    Instance,
    JsonObject,
    Operation,
    Refusal,
    Status,
    Storage,
)

FINAL_STATUS = one_of(FINAL_STATUSES)


@dataclass(frozen=True, slots=True)
class Done:
    """What an operation changed, and what its reply says of it."""

    details: JsonObject
    instance: Instance
    span_id: str | None = None

    def reply(self) -> JsonObject:
        """Build the body of the reply."""
        body: JsonObject = {"status": "success", "details": self.details}
        if self.span_id is not None and self.instance.status == Status.TERMINATED:
            body["control"] = {"terminate": True, "reason": self.instance.termination_reason}
        return body


def start_instance(storage: Storage, account: str, operation: Operation) -> Done:
    """Move a pending instance to active."""
    complaints = Complaints()
    instance_id = target(operation, "agent_instance_id", complaints)
    timestamp = Fields(operation.fields, complaints).required("timestamp", TIMESTAMP)
    complaints.refuse_if_any()
    instance = find_instance(storage, account, instance_id)
    if instance.status != Status.PENDING:
        raise invalid_action(f"the instance is {instance.status}: only a pending one can start")
    storage.start_instance(instance_id, timestamp)
    details = instance_details(instance) | {"status": Status.ACTIVE, "started_at": timestamp}
    return Done(details, instance)


def finish_instance(storage: Storage, account: str, operation: Operation) -> Done:
    """Move an active instance to a final state."""
    complaints = Complaints()
    instance_id = target(operation, "agent_instance_id", complaints)
    fields = Fields(operation.fields, complaints)
    status = fields.required("status", FINAL_STATUS)
    timestamp = fields.required("timestamp", TIMESTAMP)
    complaints.refuse_if_any()
    instance = find_instance(storage, account, instance_id)
    if instance.status != Status.ACTIVE:
        raise invalid_action(f"the instance is {instance.status}: only an active one can finish")
    storage.finish_instance(instance_id, status, timestamp)
    details = instance_details(instance) | {"status": status, "finished_at": timestamp}
    return Done(details, instance)


def record_quality(storage: Storage, account: str, operation: Operation) -> Done:
    """Set or remove a quality."""
    complaints = Complaints()
    instance_id = target(operation, "agent_instance_id", complaints)
    fields = Fields(operation.fields, complaints)
    name = fields.required("name", TEXT)
    payload = fields.nullable("payload", OBJECT)
    complaints.refuse_if_any()
    # Assumed: a quality can be recorded in any state, also when all is over.
    instance = find_instance(storage, account, instance_id)
    storage.set_quality(instance_id, name, payload)
    return Done(instance_details(instance) | {"quality": name}, instance)


def instance_details(instance: Instance) -> JsonObject:
    """Say of an instance what the API's replies say."""
    return {
        "id": instance.id,
        "status": instance.status,
        "registered_at": instance.registered_at,
        "started_at": instance.started_at,
        "finished_at": instance.finished_at,
        "termination_reason": instance.termination_reason,
    }


def find_instance(storage: Storage, account: str, instance_id: str) -> Instance:
    """Find an instance of this account.

    Raises:
        Refusal: There is none.
    """
    instance = storage.instance(account, instance_id)
    if instance is None:
        raise Refusal(404, "not_found", f"there is no agent instance {instance_id}")
    return instance


def target(operation: Operation, name: str, complaints: Complaints) -> str:
    """Read the id that an operation acts on."""
    if PFID.accepts(operation.target):
        return cast("str", operation.target)
    complaints.add(name, "is required" if operation.target is None else PFID.expected)
    return PFID.blank


def invalid_action(message: str) -> Refusal:
    """Build the refusal of what the present state does not allow."""
    return Refusal(409, "invalid_action", message)
