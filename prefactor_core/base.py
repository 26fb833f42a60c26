"""What both faces of the SDK share: a client and a handle whose calls are made at once.

The faces, ``client`` for asyncio and ``sync`` for all other code, add how a caller waits.
"""

import json
import logging
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from prefactor_core._version import SDK_HEADER_ENTRY
from prefactor_core.accounts import ClientStats, CloseSummary
from prefactor_core.config import PrefactorCoreConfig
from prefactor_core.exceptions import (
    ClientClosedError,
    ClientNotInitializedError,
    InvalidInputError,
    PrefactorTerminatedError,
)
from prefactor_core.identifiers import PfidFactory, require_pfid
from prefactor_core.models import FinishStatus
from prefactor_core.monitoring.termination_monitor import TerminationMonitor
from prefactor_core.operations import Operation
from prefactor_core.payloads import as_object, encode_object
from prefactor_core.plugins import create_queue
from prefactor_core.queue.base import Queue
from prefactor_core.recording.faces import Recorded
from prefactor_core.recording.instances import InstanceRecorder
from prefactor_core.recording.spans import SpanRecorder
from prefactor_core.runtime import build_runtime_environment
from prefactor_core.session import Session
from prefactor_core.texts import problem_of_sdk_header

if TYPE_CHECKING:
    from prefactor_core.schema_registry import SchemaSource

logger = logging.getLogger(__name__)

CORE_SDK_HEADER_ENTRY: Final = SDK_HEADER_ENTRY
"""This SDK's part of the ``X-Prefactor-SDK`` header."""


class _SdkHeader:
    """The SDK header of a client, apart from it: what sends the header must not keep the client alive."""

    def __init__(self, entry: str | None) -> None:
        self.set(entry)

    def set(self, entry: str | None) -> None:
        if entry is not None and (problem := problem_of_sdk_header(f"{entry} {CORE_SDK_HEADER_ENTRY}")):
            raise InvalidInputError("sdk_header_entry", f"{problem}, as name@version")
        self.entry = entry

    def __call__(self) -> str:
        return f"{self.entry} {CORE_SDK_HEADER_ENTRY}" if self.entry else CORE_SDK_HEADER_ENTRY


class BaseClient:
    """Records what agents do.

    All calls that record something raise ``InvalidInputError`` (nothing is queued then) if an argument is
    malformed or missing, ``ClientNotInitializedError`` if the client is not running, and
    ``PrefactorTelemetryFailureError`` once delivery has failed for good (the API refuses the token).

    Args:
        config: What the client needs to know.
        queue: A queue of your own, for this client alone, in place of the one that ``config.transport_url``
            names.
        sdk_header_entry: ``name@version`` of an integration, for the SDK header.
    """

    def __init__(
        self,
        config: PrefactorCoreConfig,
        queue: Queue[Operation] | None = None,
        sdk_header_entry: str | None = None,
    ) -> None:
        self._config = config
        self._queue = queue
        self._header = _SdkHeader(sdk_header_entry)
        self._ids = PfidFactory()
        self._termination_monitor = TerminationMonitor()
        self._session: Session | None = None
        self._summary = CloseSummary()
        self._was_closed = False
        self._inherited: list[Session] = []  # of the process that this one was forked from

    def stats(self) -> ClientStats:
        """Return where everything that was queued is now. Raises ``ClientNotInitializedError``."""
        if self._session is None:
            raise self._not_running()
        return self._session.lifetime.stats(self._session.spans.open_spans)

    @property
    def termination_monitor(self) -> TerminationMonitor:
        """What knows which instances the service has asked to stop; lives as long as the client."""
        return self._termination_monitor

    def recorder_of_instances(self) -> InstanceRecorder:
        """Return the recorder of instances."""
        return self._running().instances

    # -- what the faces call

    def _new_session(self, *, ends_by_itself: bool = False) -> Session:
        """Return the beginning of a life in this event loop."""
        queue = self._queue
        if queue is None:
            queue = create_queue(self._config.transport_url, self._config)
        return Session(
            self._config,
            queue,
            self._ids,
            self._header,
            self._termination_monitor,
            ends_by_itself=ends_by_itself,
        )

    def _register(
        self,
        agent_id: str | None,
        agent_version: dict[str, Any] | None,
        agent_schema_version: dict[str, Any] | None,
        instance_id: str | None,
        external_schema_version_id: str | None,
        environment_id: str | None,
        purpose: str | None,
        external_identifier: str | None,
    ) -> Recorded[str]:
        return self._running().instances.register(
            self._version(agent_version),
            self._schemas(agent_schema_version, external_schema_version_id),
            agent_id,
            instance_id,
            environment_id,
            purpose,
            external_identifier,
        )

    def _record_quality(self, instance_id: str, name: str, payload: dict[str, Any] | None) -> Recorded[None]:
        return self._running().instances.record_quality(instance_id, name, payload)

    def _create_span(
        self,
        instance_id: str,
        schema_name: str,
        parent_span_id: str | None,
        payload: dict[str, Any] | None,
        started_at: datetime | None,
    ) -> Recorded[str]:
        spans = self._running().spans
        return spans.create(instance_id, schema_name, parent_span_id, payload, started_at=started_at)

    def _finish_span(
        self, span_id: str, result_payload: dict[str, Any] | None, timestamp: datetime | None
    ) -> Recorded[None]:
        spans = self._running().spans
        span = spans.find(require_pfid(span_id, "span_id"))
        return spans.finish(span, result_payload, timestamp=timestamp)

    def _version(self, agent_version: dict[str, Any] | None) -> dict[str, Any]:
        if agent_version is None:
            raise InvalidInputError("agent_version", "is missing: give its name and external_identifier")
        version = as_object(agent_version, "agent_version")
        version.setdefault("runtime_environment", build_runtime_environment(self._header.entry))
        return version

    def _schemas(self, given: dict[str, Any] | None, external_id: str | None) -> dict[str, Any]:
        if given is not None:
            return given
        registry: SchemaSource | None = self._config.schema_registry
        if registry is None:
            raise InvalidInputError(
                "agent_schema_version", "is missing: give one, or set config.schema_registry"
            )
        if external_id is None:
            content = json.dumps(
                encode_object(registry.to_agent_schema_version(""), "schema_registry").decode(),
                sort_keys=True,  # equal content has equal ids
                separators=(",", ":"),
                ensure_ascii=False,
            )
            external_id = f"sha256:{sha256(content.encode()).hexdigest()[:32]}"
        return registry.to_agent_schema_version(external_id)

    # -- inside, and what integrations reach for

    @property
    def _initialized(self) -> bool:
        return self._session is not None

    @property
    def _sdk_header_entry(self) -> str | None:
        return self._header.entry

    def _set_sdk_header_entry(self, entry: str | None) -> None:
        self._header.set(entry)

    def _running(self) -> Session:
        session = self._session
        if session is None:
            raise self._not_running()
        session.check()
        return session

    def _recorder(self) -> SpanRecorder:
        """Return the recorder of spans, which itself refuses what cannot be taken."""
        if self._session is None:
            raise self._not_running()
        return self._session.spans

    def _not_running(self) -> ClientNotInitializedError:
        if self._was_closed:
            return ClientClosedError("the client is closed: initialize() it again to go on")
        return ClientNotInitializedError(
            "the client is not initialised: enter it as a context, or call initialize() first"
        )


class BaseHandle:
    """One agent instance, and what can be asked of it."""

    def __init__(self, instance_id: str, client: BaseClient) -> None:
        self._instance_id = instance_id
        self._of = client
        self._monitor = client.termination_monitor
        self._started = False
        self._finished = False

    @property
    def id(self) -> str:
        """The instance's id."""
        return self._instance_id

    def _start(self, timestamp: datetime | None) -> Recorded[None]:
        if self._started:
            return None, None
        recorded = self._of.recorder_of_instances().start(self._instance_id, timestamp)
        self._started = True
        return recorded

    def _finish(self, status: FinishStatus, timestamp: datetime | None) -> Recorded[None]:
        if self._finished:
            return None, None
        recorded = self._of.recorder_of_instances().finish(self._instance_id, status, timestamp)
        self._finished = True
        return recorded

    @property
    def terminated(self) -> bool:
        """Whether the service has asked this instance's agent to stop. Can be asked from any thread."""
        return self._monitor.get_termination_event(self._instance_id).is_set()

    def raise_if_terminated(self) -> None:
        """Raise ``PrefactorTerminatedError`` if the service has asked this agent to stop."""
        if self.terminated:
            raise PrefactorTerminatedError(self._monitor.reason(self._instance_id))
