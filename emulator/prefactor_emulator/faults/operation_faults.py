"""Faults that hit single operations, alone or in a bulk request."""

from typing_extensions import override

from prefactor_emulator.faults.fault import ErrorStatus, OperationFault
from prefactor_emulator.faults.subjects import Subject
from prefactor_emulator.model import Refusal, Status, utc_now
from prefactor_emulator.operations import Operation
from prefactor_emulator.storage.records import InstanceRecord
from prefactor_emulator.storage.store import Store


class Reject(OperationFault):
    """`reject:rate=0.1,status=422,schema=NAME`: never taken, and repeats of it neither."""

    status: ErrorStatus = 422

    @override
    def name_of(self, operation: Operation, subject: Subject, instance: InstanceRecord | None) -> str | None:
        return operation.key or operation.digest().hex()

    @override
    def strike(self, subject: Subject, store: Store) -> None:
        raise Refusal(self.status, "rejected", "this operation is never taken (a fault asked for)")


class Terminate(OperationFault):
    """`terminate:rate=0.1,reason=WORDS`: a share of the instances is terminated, each at a span.

    Without words after `reason=`, no reason is told.
    """

    reason: str = "a fault asked for"

    @override
    def name_of(self, operation: Operation, subject: Subject, instance: InstanceRecord | None) -> str | None:
        # Only the reply to a span's write can tell the agent, and only such a write has a schema.
        to_end = instance is not None and instance.status in {Status.PENDING, Status.ACTIVE}
        return subject.instance_id if to_end and subject.schema_name is not None else None

    @override
    def strike(self, subject: Subject, store: Store) -> None:
        if subject.instance_id is not None:
            store.terminate_instance(subject.instance_id, self.reason or None, utc_now())
