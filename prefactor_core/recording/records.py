"""What is known here of an instance, and of a span that is open."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias
from weakref import WeakValueDictionary

from prefactor_core.exclusive import Exclusive
from prefactor_core.models import AgentInstance, FinishStatus, Span

SpanStatus: TypeAlias = Literal["pending", "active"] | FinishStatus

_NO_NAMES: Final = frozenset[str]()
_INSTANCES_KEPT: Final = 100_000
"""Unfinished instances that are known at once; then the oldest are forgotten."""


class InstanceRecord(Exclusive):
    """An instance, and the lock under which its operations are made.

    Attributes:
        agent_instance: What was registered, until it is finished; ``None`` for one of another process.
        schema_names: The span types of its schema version; none where that is not known.
        spans: The spans of it that are open, by id.
        finished: Whether it was finished here. Its open spans still can be.
        forgotten: Whether another record takes its place for whatever comes next.
    """

    __slots__ = ("__weakref__", "agent_instance", "finished", "forgotten", "id", "schema_names", "spans")

    def __init__(self, instance_id: str) -> None:
        super().__init__()
        self.id = instance_id
        self.agent_instance: AgentInstance | None = None
        self.schema_names = _NO_NAMES
        self.spans: dict[str, OpenSpan] = {}
        self.finished = False
        self.forgotten = False


class OpenSpan:
    """A span from its opening to its end, and the end itself: what holds it can see that it is over.

    It leads to its instance and to nothing that records or delivers: contexts of tasks hold it.

    Attributes:
        payload: What it is started with, until it is put.
        status: ``pending`` until it is put.
        opened_at: When it was opened, and so began, unless it is started by hand.
        over: Whether it ended, or is forgotten.
    """

    __slots__ = (
        *("__weakref__", "id", "instance", "opened_at", "over", "parent_id", "payload", "schema_name"),
        *("started_at", "status"),
    )

    def __init__(
        self,
        span_id: str,
        instance: InstanceRecord,
        schema_name: str,
        parent_id: str | None,
        payload: Mapping[str, Any],
        opened_at: datetime,
    ) -> None:
        self.id = span_id
        self.instance = instance
        self.schema_name = schema_name
        self.parent_id = parent_id
        self.payload = payload
        self.opened_at = opened_at
        self.status: SpanStatus = "pending"
        self.started_at: datetime | None = None
        self.over = False

    def as_model(self) -> Span:
        """Return what is known of it now."""
        return Span(
            id=self.id,
            instance_id=self.instance.id,
            schema_name=self.schema_name,
            parent_span_id=self.parent_id,
            status=self.status,
            payload=self.payload,
            created_at=self.opened_at,
            started_at=self.started_at,
        )


class Records:
    """The instances that are recorded here: those that were registered, and those that have open spans."""

    def __init__(self) -> None:
        self._records: dict[str, InstanceRecord] = {}
        self._held: WeakValueDictionary[int, InstanceRecord] = WeakValueDictionary()

    def get(self, instance_id: str) -> InstanceRecord | None:
        """Return what is known of an instance, if anything is."""
        return self._records.get(instance_id)

    def of(self, instance_id: str) -> InstanceRecord:
        """Return the record of an instance, a new one if there is none."""
        record = self._records.get(instance_id)
        if record is None:
            record = self._records.setdefault(instance_id, self.apart(instance_id))
            if len(self._records) > _INSTANCES_KEPT:
                oldest = next(iter(self.all()))
                oldest.alone(self._forget, oldest)
        return record

    def apart(self, instance_id: str) -> InstanceRecord:
        """Return a record for one call on an instance of another process, of which nothing is kept."""
        record = InstanceRecord(instance_id)
        self._held[id(record)] = record
        return record

    def all(self) -> list[InstanceRecord]:
        """Return all of them."""
        return list(self._records.values())

    def held(self) -> list[InstanceRecord]:
        """Return all that anybody holds, in a call that is under way say, forgotten ones too."""
        return [record for ref in self._held.valuerefs() if (record := ref()) is not None]

    def forget(self, record: InstanceRecord) -> None:
        """Let go of a record whose lock is held; whoever has it sees that.

        One that has an open span is kept: it may have been opened just now.
        """
        record.forgotten = True
        if record.spans:
            record.forgotten = False
        else:
            self._forget(record)

    def _forget(self, record: InstanceRecord) -> None:
        record.forgotten = True
        if self._records.get(record.id) is record:
            del self._records[record.id]
