"""The client for asyncio: the one object that an agent needs."""

import asyncio
import logging
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from prefactor_core.accounts import CloseSummary
from prefactor_core.base import CORE_SDK_HEADER_ENTRY, BaseClient
from prefactor_core.config import PrefactorCoreConfig
from prefactor_core.exceptions import ClientAlreadyInitializedError, PrefactorCoreError
from prefactor_core.instance_handle import AgentInstanceHandle, InstanceRequest
from prefactor_core.managers.agent_instance import AgentInstanceManager
from prefactor_core.operations import Operation
from prefactor_core.queue.base import Queue
from prefactor_core.recording.faces import awaiting
from prefactor_core.span_context import SpanScope

if TYPE_CHECKING:
    from prefactor_core.lifetime import Lifetime

__all__ = ["CORE_SDK_HEADER_ENTRY", "PrefactorCoreClient"]

logger = logging.getLogger(__name__)


class PrefactorCoreClient(BaseClient):
    """Records what agents do, for asyncio.

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
        super().__init__(config, queue, sdk_header_entry)
        self._closing: Lifetime | None = None

    # -- life

    async def initialize(self) -> None:
        """Begin to take calls. Does not wait for the network; the token is checked in the background.

        A client whose event loop was closed before the client was begins anew; so it does in a forked child.

        Raises:
            ClientAlreadyInitializedError: It has begun already.
            TransportError: ``transport_url`` cannot be served: its scheme is unknown, an option is wrong, or
                the driver is missing (``MissingDriverError``).
            InvalidInputError: The configuration lacks something that this transport needs, or ``queue`` is
                closed.
        """
        if self._session is not None:
            left = self._session.lifetime
            if not left.left_behind:
                raise ClientAlreadyInitializedError(
                    "initialize() on a client that is running: close it first"
                )
            if left.is_a_fork:
                # Untouched, and kept: closing its event loop would take the parent's sockets from what both
                # poll with.
                self._inherited.append(self._session)
            self._session = None
            await left.leave()
        self._closing = None
        self._session = self._new_session()
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
            self._was_closed = True  # before other threads find no session
            self._closing, self._session = lifetime, None
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
            recorded = self._register(
                agent_id,
                agent_version,
                agent_schema_version,
                instance_id,
                external_schema_version_id,
                environment_id,
                purpose,
                external_identifier,
            )
            return AgentInstanceHandle(await awaiting(recorded), self)

        return InstanceRequest(register())

    async def record_quality(
        self, instance_id: str, name: str, payload: dict[str, Any] | None = None
    ) -> None:
        """Queue a quality of an instance: what is known of how well it did.

        Args:
            instance_id: PFID of the instance; another process may own it.
            name: Name of the quality, as registered with ``SchemaRegistry.register_quality_schema``.
            payload: Its value; ``None`` removes what was recorded.
        """
        await awaiting(self._record_quality(instance_id, name, payload))

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
        return SpanScope(self._recorder, instance_id, schema_name, parent_span_id, payload)

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
        recorded = self._create_span(instance_id, schema_name, parent_span_id, payload, started_at)
        return await awaiting(recorded)

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
        await awaiting(self._finish_span(span_id, result_payload, timestamp))
