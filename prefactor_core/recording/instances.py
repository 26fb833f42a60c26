"""Recording of instances: from calls to operations."""

import itertools
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from prefactor_core.arguments import as_time, require_end_status, require_name
from prefactor_core.bounded import remember
from prefactor_core.exceptions import InstanceNotFoundError, InvalidInputError, InvalidPayloadError
from prefactor_core.exclusive import Exclusive
from prefactor_core.identifiers import PfidFactory, is_pfid, require_pfid
from prefactor_core.models import AgentInstance, FinishStatus
from prefactor_core.operations import Operation, OperationType
from prefactor_core.payloads import MAX_PAYLOAD_BYTES, encode_object
from prefactor_core.recording.entrance import Entrance
from prefactor_core.recording.faces import Recorded
from prefactor_core.recording.handover import Wait
from prefactor_core.recording.records import InstanceRecord
from prefactor_core.schema_registry import span_names
from prefactor_core.utils import validate_idempotency_key

_FINISHED_KEPT: Final = 10_000
"""Finishes that are remembered, so that a second one does nothing."""
_QUALITIES_KEPT: Final = 20
"""Qualities of one instance that can be looked at here; then the oldest are forgotten."""
_QUALITY_BYTES_KEPT: Final = 64 * 1024
"""Bytes of JSON that those take at most."""
PURPOSES: Final = frozenset({"live", "smoke_test", "eval"})


class InstanceRecorder:
    """Records instances, in any thread, and tells of each that was registered or finished.

    An argument that is malformed raises ``InvalidInputError`` (a key ``ValueError``), and nothing is put.
    """

    def __init__(
        self,
        entrance: Entrance,
        ids: PfidFactory,
        now: Callable[[], datetime],
        on_register: Callable[[str], None],
        on_finish: Callable[[InstanceRecord], None],
    ) -> None:
        self._entrance = entrance
        self._ids = ids
        self._now = now
        self._on_register = on_register
        self._on_finish = on_finish
        # Qualities may be repeated on purpose, by several processes too: each has a key of its own.
        self._quality_key = secrets.token_hex(4)
        self._quality_number = itertools.count()
        self._finishes = Exclusive()
        self._finish_keys: dict[str, None] = {}
        self._schema_names = frozenset[str]()

    def register(
        self,
        agent_version: dict[str, Any],
        agent_schema_version: dict[str, Any],
        agent_id: str | None = None,
        instance_id: str | None = None,
        environment_id: str | None = None,
        purpose: str | None = None,
        external_identifier: str | None = None,
    ) -> Recorded[str]:
        """Put the registration of a new instance and return its id.

        The arguments are those of ``PrefactorCoreClient.create_agent_instance``.
        """
        self._entrance.check()
        if instance_id is not None:
            require_pfid(instance_id, "instance_id")
        elif agent_id is not None and is_pfid(agent_id):
            instance_id = self._ids.related(agent_id)
        else:
            instance_id = self._ids.new()
        if purpose is not None and purpose not in PURPOSES:
            raise InvalidInputError("purpose", f"expected live, smoke_test or eval, got {purpose!r}")
        names = {
            "agent_id": agent_id,
            "environment_id": environment_id,
            "external_identifier": external_identifier,
        }
        for field, value in names.items():
            if value is not None:
                require_name(value, field)
        version = encode_object(agent_version, "agent_version")
        schemas = encode_object(agent_schema_version, "agent_schema_version")
        together = len(version.encoded) + len(schemas.encoded)
        if together > MAX_PAYLOAD_BYTES:
            raise InvalidPayloadError(
                "agent_schema_version",
                f"takes {together:,} bytes as JSON together with agent_version, "
                f"at most {MAX_PAYLOAD_BYTES:,} can be sent",
            )
        payload = {
            "instance_id": instance_id,
            "agent_id": agent_id,
            "agent_version": version,
            "agent_schema_version": schemas,
            "environment_id": environment_id,
            "external_identifier": external_identifier,
            "purpose": purpose,
        }
        now = self._now()
        known = span_names(schemas.decode())
        if known != self._schema_names:  # else one set serves many instances
            self._schema_names = known
        instance = AgentInstance(
            instance_id, agent_id or "", created_at=now, purpose=purpose, schema_names=known
        )
        operation = Operation(OperationType.REGISTER_AGENT_INSTANCE, payload, now, f"{instance_id}:register")
        self._on_register(instance_id)
        record = self._entrance.records.of(instance_id)
        return instance_id, record.alone(self._register, record, instance, operation)

    def start(self, instance_id: str, timestamp: datetime | None = None) -> Recorded[None]:
        """Put the start of an instance. One that this client has started is not started again."""
        return self.start_with_idempotency_key(instance_id, f"{instance_id}:start", timestamp)

    def start_with_idempotency_key(
        self, instance_id: str, idempotency_key: str, timestamp: datetime | None = None
    ) -> Recorded[None]:
        """Put the start of an instance under a key of the caller's."""
        self._entrance.check()
        require_pfid(instance_id, "instance_id")
        began = as_time(timestamp, "timestamp")
        validate_idempotency_key(idempotency_key)
        records = self._entrance.records
        record = records.get(instance_id) or records.apart(instance_id)
        return None, record.alone(self._start, record, idempotency_key, began)

    def finish(
        self, instance_id: str, status: FinishStatus = "complete", timestamp: datetime | None = None
    ) -> Recorded[None]:
        """Put the finish of an instance, and forget the instance.

        One that was registered here and never started is started first: the API finishes only what has begun.
        """
        return self.finish_with_idempotency_key(instance_id, f"{instance_id}:finish", status, timestamp)

    def finish_with_idempotency_key(
        self,
        instance_id: str,
        idempotency_key: str,
        status: FinishStatus = "complete",
        timestamp: datetime | None = None,
    ) -> Recorded[None]:
        """Put the finish of an instance under a key of the caller's, and forget the instance."""
        self._entrance.check()
        require_pfid(instance_id, "instance_id")
        require_end_status(status)
        ended = as_time(timestamp, "timestamp")
        validate_idempotency_key(idempotency_key)
        if not self._finishes.hold(self._is_first_finish, idempotency_key):
            return None, None  # by another handle; a second one would be refused for its other time
        record = self._entrance.records.of(instance_id)
        wait = record.alone(self._finish, record, idempotency_key, status, ended)
        self._on_finish(record)
        return None, wait

    def record_quality(
        self, instance_id: str, name: str, payload: dict[str, Any] | None = None
    ) -> Recorded[None]:
        """Put a quality of an instance; see ``PrefactorCoreClient.record_quality``."""
        self._entrance.check()
        require_pfid(instance_id, "instance_id")
        require_name(name, "name")
        encoded = None if payload is None else encode_object(payload, "payload")
        fields = {"instance_id": instance_id, "name": name, "payload": encoded}
        records = self._entrance.records
        record = records.get(instance_id) or records.apart(instance_id)
        return None, record.alone(self._record_quality, record, fields)

    def get(self, instance_id: str) -> AgentInstance:
        """Return what is known of an instance that this client registered and has not finished.

        Raises:
            InstanceNotFoundError: There is no such instance here.
        """
        record = self._entrance.records.get(instance_id)
        if record is None or record.agent_instance is None:
            raise InstanceNotFoundError(
                f"instance {instance_id!r} was not registered by this client, or is finished"
            )
        return record.agent_instance

    def _is_first_finish(self, key: str) -> bool:
        if key in self._finish_keys:
            return False
        remember(self._finish_keys, key, None, _FINISHED_KEPT)
        return True

    # -- what is done alone

    def _register(self, record: InstanceRecord, instance: AgentInstance, operation: Operation) -> Wait | None:
        record.agent_instance = instance
        record.schema_names = instance.schema_names
        return self._entrance.give((operation,))

    def _start(self, record: InstanceRecord, key: str, began: datetime | None) -> Wait | None:
        instance = record.agent_instance
        if instance is not None and instance.status != "pending":
            return None
        return self._entrance.give((start_of(record, began, self._now(), key),))

    def _finish(
        self, record: InstanceRecord, key: str, status: FinishStatus, ended: datetime | None
    ) -> Wait | None:
        now = self._now()
        payload = {"instance_id": record.id, "status": status, "timestamp": (ended or now).isoformat()}
        finish = Operation(OperationType.FINISH_AGENT_INSTANCE, payload, now, key)
        operations = (*starts_of(record, ended, now), finish)
        record.agent_instance = None
        record.schema_names = frozenset()
        record.finished = True
        if not record.spans:
            self._entrance.records.forget(record)
        return self._entrance.give(operations)

    def _record_quality(self, record: InstanceRecord, fields: dict[str, Any]) -> Wait | None:
        if (instance := record.agent_instance) is not None:
            kept = {**(instance.quality_payloads or {}), fields["name"]: fields["payload"]}
            instance.quality_payloads = _latest({key: one for key, one in kept.items() if one is not None})
        key = f"{record.id}:quality:{self._quality_key}{next(self._quality_number)}"
        return self._entrance.give((Operation(OperationType.RECORD_QUALITY, fields, self._now(), key),))


def starts_of(record: InstanceRecord, began: datetime | None, now: datetime) -> tuple[Operation, ...]:
    """Return the start of an instance that was registered here and not started; what is put next began then.

    The API takes spans, and a finish, only of an instance that has begun; an agent that forgets to say so
    must not lose its run. The record's lock is held.
    """
    if record.agent_instance is None or record.agent_instance.status != "pending":
        return ()
    return (start_of(record, began, now, f"{record.id}:start"),)


def start_of(record: InstanceRecord, began: datetime | None, now: datetime, key: str) -> Operation:
    """Return the start of an instance, by default now, and take note of it."""
    began = began or now
    if record.agent_instance is not None:
        record.agent_instance.status, record.agent_instance.started_at = "active", began
    payload = {"instance_id": record.id, "timestamp": began.isoformat()}
    return Operation(OperationType.START_AGENT_INSTANCE, payload, now, key)


def _latest(qualities: dict[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the last of some qualities, by name, as many as are kept."""
    sizes = {name: len(encode_object(quality, "payload").encoded) for name, quality in qualities.items()}
    while len(sizes) > _QUALITIES_KEPT or sum(sizes.values()) > _QUALITY_BYTES_KEPT:
        del sizes[next(iter(sizes))]
    return {name: qualities[name] for name in sizes}
