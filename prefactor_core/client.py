"""The client: the one object that an agent needs."""

import asyncio
import json
import logging
from datetime import datetime
from hashlib import sha256
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from prefactor_core._version import SDK_HEADER_ENTRY
from prefactor_core.accounts import ClientStats, CloseSummary
from prefactor_core.config import PrefactorCoreConfig
from prefactor_core.exceptions import (
    ClientAlreadyInitializedError,
    ClientClosedError,
    ClientNotInitializedError,
    InvalidInputError,
    PrefactorCoreError,
)
from prefactor_core.identifiers import PfidFactory, require_pfid
from prefactor_core.instance_handle import AgentInstanceHandle, InstanceRequest
from prefactor_core.managers.agent_instance import AgentInstanceManager
from prefactor_core.monitoring.termination_monitor import TerminationMonitor
from prefactor_core.operations import Operation
from prefactor_core.payloads import as_object, encode_object
from prefactor_core.plugins import create_queue
from prefactor_core.queue.base import Queue
from prefactor_core.recording.faces import awaited
from prefactor_core.runtime import build_runtime_environment
from prefactor_core.session import Session
from prefactor_core.span_context import SpanContext, SpanScope
from prefactor_core.texts import problem_of_sdk_header

if TYPE_CHECKING:
    from prefactor_core.lifetime import Lifetime
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


class PrefactorCoreClient:
    """Records what agents do.

    Calls queue operations and return at once; the network is somebody else's task. Use it with
    ``async with``, or call ``initialize`` and ``close``. Operations are delivered in the event loop that
    initialised it; once that is closed, the client can be initialised again in another. Calls may come from
    any event loop, in any thread.

    A client that nobody holds any more, nor any handle or span of it, is closed in the background, with a
    warning.

    All calls that record something raise, when they are awaited or entered, ``InvalidInputError`` (nothing is
    queued then) if an argument is malformed or missing, ``ClientNotInitializedError`` if the client is not
    running, and ``PrefactorTelemetryFailureError`` once delivery has failed for good (the API refuses the
    token).

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
        self._closing: Lifetime | None = None
        self._summary = CloseSummary()
        self._was_closed = False

    # -- life

    async def initialize(self) -> None:
        """Begin to take calls. Does not wait for the network; the token is checked in the background.

        A client whose event loop was closed before the client was begins anew.

        Raises:
            ClientAlreadyInitializedError: It has begun already.
            TransportError: ``transport_url`` cannot be served: its scheme is unknown, an option is wrong, or
                the driver is missing (``MissingDriverError``).
            InvalidInputError: The configuration lacks something that this transport needs, or ``queue`` is
                closed.
        """
        if self._session is not None:
            left = self._session.lifetime
            if not left.loop_closed:
                raise ClientAlreadyInitializedError(
                    "initialize() on a client that is running: close it first"
                )
            self._session = None
            await left.leave()
        self._closing = None
        queue = self._queue
        if queue is None:
            queue = create_queue(self._config.transport_url, self._config)
        self._session = Session(self._config, queue, self._ids, self._header, self._termination_monitor)
        try:
            await self._session.lifetime.begin()
        except asyncio.CancelledError:
            await self.close(0)
            raise

    async def close(self, timeout: float | None = None) -> CloseSummary:
        """Deliver what is queued, and end. Closing again, or at the same time, returns the same summary.

        A client that was never initialised has nothing to close. Cancelled, it ends at once; what was left is
        logged. If the event loop that initialised the client is closed, nothing can be delivered any more.

        Args:
            timeout: Seconds it takes at most; by default ``config.close_timeout``.

        Returns:
            What was delivered and what was left. It is logged, too, when something was left.

        Raises:
            PrefactorTelemetryFailureError: The API has refused the token; what was queued is lost. Raised
                once: closing again returns the summary.
        """
        if self._session is not None:
            lifetime = self._session.lifetime
            lifetime.end(self._config.close_timeout if timeout is None else timeout)
            self._closing, self._session = lifetime, None
            self._was_closed = True
        closing = self._closing
        if closing is None:
            return self._summary
        summary = await closing.ended()
        if self._closing is closing:
            self._closing, self._summary = None, summary
        return summary

    async def flush(self, timeout: float = 30.0) -> bool:
        """Wait until everything queued so far is delivered: for the end of a request, say, or of a test.

        Returns:
            Whether that came true in ``timeout`` seconds. What was dead-lettered counts as dealt with.

        Raises:
            ClientNotInitializedError: The client is not running.
            PrefactorTelemetryFailureError: Delivery has failed for good.
        """
        if self._session is None:
            raise self._not_running()
        return await self._session.lifetime.flush(timeout)

    def stats(self) -> ClientStats:
        """Return where everything that was queued is now. Raises ``ClientNotInitializedError``."""
        if self._session is None:
            raise self._not_running()
        return self._session.lifetime.stats(self._session.spans.open_spans)

    @property
    def termination_monitor(self) -> TerminationMonitor:
        """What knows which instances the service has asked to stop; lives as long as the client."""
        return self._termination_monitor

    async def __aenter__(self) -> Self:
        """Initialise."""
        await self.initialize()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close; an exception of the caller's own goes before whatever closing meets."""
        try:
            await self.close()
        except PrefactorCoreError as failure:
            if exc_type is None:
                raise
            logger.warning("closing after an exception of the agent's own: %s", failure)

    @property
    def instance_manager(self) -> AgentInstanceManager:
        """The manager of agent instances."""
        return AgentInstanceManager(self._running().instances)

    # -- instances

    def create_agent_instance(
        self,
        agent_id: str | None = None,
        agent_version: dict[str, Any] | None = None,
        agent_schema_version: dict[str, Any] | None = None,
        instance_id: str | None = None,
        external_schema_version_id: str | None = None,
        *,
        environment_id: str | None = None,
        purpose: str | None = None,
        external_identifier: str | None = None,
    ) -> InstanceRequest:
        """Register a new agent instance.

        ``await`` it for a handle, or use it with ``async with``: leaving finishes the instance if it is
        unfinished. The instance starts with ``start()``, or else with its first span.

        Args:
            agent_id: Name or PFID of the agent; none with a token that names the deployment.
            agent_version: Its ``name``, ``external_identifier``, and what else the API takes.
            agent_schema_version: The schemas of its spans; by default ``config.schema_registry``'s.
            instance_id: PFID of your choice; by default a new one.
            external_schema_version_id: External identifier for the registry's version; by default derived
                from its content, since versions are immutable at the API.
            environment_id: The environment; none with a token that names the deployment.
            purpose: ``live``, ``smoke_test`` or ``eval``.
            external_identifier: Your own name for the instance.
        """

        async def register() -> AgentInstanceHandle:
            registered = await awaited(self._running().instances.register)(
                self._version(agent_version),
                self._schemas(agent_schema_version, external_schema_version_id),
                agent_id,
                instance_id,
                environment_id,
                purpose,
                external_identifier,
            )
            return AgentInstanceHandle(registered, self)

        return InstanceRequest(register())

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

    async def record_quality(
        self, instance_id: str, name: str, payload: dict[str, Any] | None = None
    ) -> None:
        """Queue a quality of an instance: what is known of how well it did.

        Args:
            instance_id: PFID of the instance; another process may own it.
            name: Name of the quality, as registered with ``SchemaRegistry.register_quality_schema``.
            payload: Its value; ``None`` removes what was recorded.
        """
        await awaited(self._running().instances.record_quality)(instance_id, name, payload)

    # -- spans

    def span(
        self,
        instance_id: str,
        schema_name: str,
        parent_span_id: str | None = None,
        payload: dict[str, Any] | None = None,
    ) -> SpanScope:
        """Open a span for the length of an ``async with``, which yields its ``SpanContext``.

        It begins when the block is entered, unless ``SpanContext.start`` is called in it. A context that was
        entered by hand and is dropped without an end is finished as complete, with a warning.

        A ``schema_name`` that the instance's schema version lacks is warned of, once a name: the API records
        such spans, and flags them.

        Args:
            instance_id: PFID of the instance; another process may own it.
            schema_name: Name of the span's schema.
            parent_span_id: PFID of the parent; by default the innermost open span of the same instance.
            payload: Inputs of the span, sent when it starts; anything that pydantic serialises to an object.
        """

        def open_span() -> SpanContext:
            if self._session is None:
                raise self._not_running()
            spans = self._session.spans
            return SpanContext(spans.open(instance_id, schema_name, parent_span_id, payload), spans)

        return SpanScope(open_span, self._running)

    async def create_span(
        self,
        instance_id: str,
        schema_name: str,
        parent_span_id: str | None = None,
        payload: dict[str, Any] | None = None,
        started_at: datetime | None = None,
    ) -> str:
        """Open a span that stays open until ``finish_span``, and return its id.

        The arguments are as for ``span``; ``started_at`` is when it began, by default now. A time
        without a zone is UTC.
        """
        create = awaited(self._running().spans.create)
        return await create(instance_id, schema_name, parent_span_id, payload, started_at=started_at)

    async def finish_span(
        self, span_id: str, result_payload: dict[str, Any] | None = None, timestamp: datetime | None = None
    ) -> None:
        """Finish a span as complete.

        A result that cannot be sent is replaced by a marker that says so, and a warning is logged.

        Args:
            span_id: What ``create_span`` returned.
            result_payload: Results of the span.
            timestamp: When it ended, UTC if it has no zone; by default now.

        Raises:
            SpanNotFoundError: The span is not open in this client.
        """
        spans = self._running().spans
        span = spans.find(require_pfid(span_id, "span_id"))
        await awaited(spans.finish)(span, result_payload, timestamp=timestamp)

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

    def _not_running(self) -> ClientNotInitializedError:
        if self._was_closed:
            return ClientClosedError("the client is closed: initialize() it again to go on")
        return ClientNotInitializedError(
            "the client is not initialised: use it with 'async with', or call initialize() first"
        )
