"""The SDK for code without an event loop: scripts, threads, Flask, Celery, notebooks.

The same names, ``with`` for ``async with``, and no ``await``::

    from prefactor_core.sync import PrefactorCoreClient

    with PrefactorCoreClient(config) as client:
        with client.create_agent_instance(agent_version=version) as instance:
            with instance.span("agent:llm", payload={"prompt": "Hi"}) as span:
                span.set_result({"response": call_llm("Hi")})

Calls return at once, in any thread; a daemon thread delivers. As the interpreter exits, a client that was not
closed delivers what it has, for ``close_timeout`` seconds at most. A forked process goes on with a client of
its parent's by itself: it begins anew, and what its parent had recorded is its parent's to deliver.
"""

import asyncio
import logging
import threading
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from prefactor_core.accounts import CloseSummary
from prefactor_core.base import BaseClient, BaseHandle
from prefactor_core.config import PrefactorCoreConfig
from prefactor_core.delivery_thread import DeliveryThread
from prefactor_core.exceptions import ClientAlreadyInitializedError, PrefactorCoreError
from prefactor_core.forks import FORKS, Forkable
from prefactor_core.lifetime import Lifetime
from prefactor_core.models import FinishStatus
from prefactor_core.operations import Operation
from prefactor_core.queue.base import Queue
from prefactor_core.recording.context import BaseSpanContext, BaseSpanScope
from prefactor_core.recording.faces import blocking
from prefactor_core.recording.records import OpenSpan
from prefactor_core.recording.spans import SpanRecorder
from prefactor_core.session import Session

__all__ = ["AgentInstanceHandle", "PrefactorCoreClient", "SpanContext"]

logger = logging.getLogger(__name__)


class SpanContext(BaseSpanContext):
    """A span under way; each step is as that of ``prefactor_core.SpanContext``."""

    def start(self, payload: dict[str, Any] | None = None, started_at: datetime | None = None) -> None:
        """Put the span as active."""
        wait = self._start(payload, started_at)
        if wait is not None:
            wait.block()

    def complete(self, result: dict[str, Any] | None = None, timestamp: datetime | None = None) -> None:
        """End the span as complete."""
        wait = self._end("complete", result, timestamp)
        if wait is not None:
            wait.block()

    def fail(self, result: dict[str, Any] | None = None, timestamp: datetime | None = None) -> None:
        """End the span as failed."""
        wait = self._end("failed", result, timestamp)
        if wait is not None:
            wait.block()

    def cancel(self, timestamp: datetime | None = None) -> None:
        """End the span as cancelled."""
        wait = self._cancel(timestamp)
        if wait is not None:
            wait.block()

    def finish(self) -> None:
        """End the span with the status set last."""
        wait = self._finish()
        if wait is not None:
            wait.block()


class SpanScope(BaseSpanScope[SpanContext]):
    """What ``span()`` returns; as ``prefactor_core.span_context.SpanScope``."""

    def _new_context(self, span: OpenSpan, recorder: SpanRecorder) -> SpanContext:
        return SpanContext(span, recorder)

    def __enter__(self) -> SpanContext:
        """Open the span; nothing is sent yet."""
        return self._enter()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the span, if it has not been ended."""
        wait = self._leave(exc_type, exc)
        if wait is None:
            return
        try:
            wait.block()
        except Exception as failure:
            if exc is None:
                raise
            self._report(failure)  # the agent's own exception must not be masked


class AgentInstanceHandle(BaseHandle):
    """One agent instance; each call is as that of ``prefactor_core.AgentInstanceHandle``.

    Used with ``with`` it is finished, if it is unfinished: failed or cancelled where an exception came by.
    """

    def __init__(self, instance_id: str, client: "PrefactorCoreClient") -> None:
        super().__init__(instance_id, client)
        self._client = client

    def start(self, timestamp: datetime | None = None) -> None:
        """Queue the start of the instance, by default now."""
        blocking(self._start(timestamp))

    def finish(self, status: FinishStatus = "complete", timestamp: datetime | None = None) -> None:
        """Queue the finish of the instance."""
        blocking(self._finish(status, timestamp))

    def span(
        self, schema_name: str, parent_span_id: str | None = None, payload: dict[str, Any] | None = None
    ) -> SpanScope:
        """Open a span for the length of a ``with``."""
        return self._client.span(self._instance_id, schema_name, parent_span_id, payload)

    def create_span(
        self,
        schema_name: str,
        parent_span_id: str | None = None,
        payload: dict[str, Any] | None = None,
        started_at: datetime | None = None,
    ) -> str:
        """Open a span until ``finish_span``."""
        return self._client.create_span(self._instance_id, schema_name, parent_span_id, payload, started_at)

    def finish_span(
        self, span_id: str, result_payload: dict[str, Any] | None = None, timestamp: datetime | None = None
    ) -> None:
        """Finish a span of ``create_span``."""
        self._client.finish_span(span_id, result_payload, timestamp)

    def record_quality(self, name: str, payload: dict[str, Any] | None = None) -> None:
        """Queue a quality of this instance."""
        self._client.record_quality(self._instance_id, name, payload)

    def __enter__(self) -> Self:
        """Return the handle, without starting the instance."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Finish the instance, if it is unfinished."""
        if exc_type is None:
            self.finish()
            return
        try:
            self.finish("cancelled" if issubclass(exc_type, asyncio.CancelledError) else "failed")
        except PrefactorCoreError as failure:
            # The agent's own exception is on its way and must not be masked.
            logger.warning("prefactor: instance %s could not be finished: %s", self._instance_id, failure)


class PrefactorCoreClient(BaseClient, Forkable):
    """Records what agents do, from code without an event loop; each call is as ``prefactor_core``'s own.

    Use it with ``with``, or call ``initialize`` and ``close``.
    """

    def __init__(
        self,
        config: PrefactorCoreConfig,
        queue: Queue[Operation] | None = None,
        sdk_header_entry: str | None = None,
    ) -> None:
        super().__init__(config, queue, sdk_header_entry)
        self._delivery: DeliveryThread | None = None
        self._lock = threading.RLock()
        self._inherited_threads: list[DeliveryThread] = []
        FORKS.tell(self)

    # -- life

    def initialize(self) -> None:
        """Begin to take calls; a thread is started.

        Raises:
            ClientAlreadyInitializedError, TransportError, InvalidInputError: As for the other client.
        """
        with self._lock:
            if self._session is not None:
                raise ClientAlreadyInitializedError(
                    "initialize() on a client that is running: close it first"
                )
            made: list[Session] = []  # the thread must not hold it

            def make() -> Lifetime:
                made.append(self._new_session(ends_by_itself=True))
                return made[0].lifetime

            self._delivery = DeliveryThread(make, self._config.close_timeout)
            self._session = made[0]

    def close(self, timeout: float | None = None) -> CloseSummary:
        """Deliver what is queued, end the thread, and return what became of everything.

        Closing again returns the same summary.
        """
        with self._lock:
            delivery = self._delivery
            if delivery is not None:
                timeout = self._config.close_timeout if timeout is None else timeout
                delivery.end(timeout)  # before the session is let go
                self._was_closed = True  # before other threads find no session
                self._delivery = self._session = None
                self._summary = delivery.close(timeout)
            return self._summary

    def flush(self, timeout: float = 30.0) -> bool:
        """Wait until everything queued so far is delivered; return whether that came true in time."""
        self._running()
        delivery = self._delivery
        if delivery is None:
            raise self._not_running()
        return delivery.flush(timeout)

    def after_fork_in_child(self) -> None:
        """Begin anew with the next call: this process was forked, and what is here is its parent's."""
        self._lock = threading.RLock()  # another thread of the parent's may have had it
        if self._session is not None and self._delivery is not None:
            # Untouched, and kept: the loop that they lead to is polled with what the parent polls with.
            self._inherited.append(self._session)
            self._inherited_threads.append(self._delivery)
            self._session = self._delivery = None

    def __enter__(self) -> Self:
        """Initialise."""
        self.initialize()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close; an exception of the caller's own goes before whatever closing meets."""
        try:
            self.close()
        except PrefactorCoreError as failure:
            if exc_type is None:
                raise
            logger.warning("closing after an exception of the agent's own: %s", failure)

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
    ) -> AgentInstanceHandle:
        """Register a new agent instance; used with ``with``, it is finished if it is unfinished."""
        registered = blocking(
            self._register(
                agent_id,
                agent_version,
                agent_schema_version,
                instance_id,
                external_schema_version_id,
                environment_id,
                purpose,
                external_identifier,
            )
        )
        return AgentInstanceHandle(registered, self)

    def record_quality(self, instance_id: str, name: str, payload: dict[str, Any] | None = None) -> None:
        """Queue a quality of an instance."""
        blocking(self._record_quality(instance_id, name, payload))

    # -- spans

    def span(
        self,
        instance_id: str,
        schema_name: str,
        parent_span_id: str | None = None,
        payload: dict[str, Any] | None = None,
    ) -> SpanScope:
        """Open a span for the length of a ``with``, which yields its ``SpanContext``."""
        return SpanScope(self._recorder, instance_id, schema_name, parent_span_id, payload)

    def create_span(
        self,
        instance_id: str,
        schema_name: str,
        parent_span_id: str | None = None,
        payload: dict[str, Any] | None = None,
        started_at: datetime | None = None,
    ) -> str:
        """Open a span that stays open until ``finish_span``, and return its id."""
        return blocking(self._create_span(instance_id, schema_name, parent_span_id, payload, started_at))

    def finish_span(
        self, span_id: str, result_payload: dict[str, Any] | None = None, timestamp: datetime | None = None
    ) -> None:
        """Finish a span as complete."""
        blocking(self._finish_span(span_id, result_payload, timestamp))

    # -- inside

    def _running(self) -> Session:
        self._go_on()
        return super()._running()

    def _recorder(self) -> SpanRecorder:
        self._go_on()
        return super()._recorder()

    def _go_on(self) -> None:
        """Begin anew in a forked process, if its parent's client was running."""
        if self._session is None and self._inherited and not self._was_closed:
            with self._lock:
                if self._session is None and not self._was_closed:
                    self.initialize()
