"""The handle to one agent instance: what agents hold."""

import asyncio
import logging
from collections.abc import Coroutine, Generator
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from prefactor_core.base import BaseHandle
from prefactor_core.exceptions import PrefactorCoreError
from prefactor_core.models import FinishStatus
from prefactor_core.recording.faces import awaiting
from prefactor_core.span_context import SpanScope

if TYPE_CHECKING:
    from prefactor_core.client import PrefactorCoreClient

logger = logging.getLogger(__name__)


class AgentInstanceHandle(BaseHandle):
    """One agent instance, with everything that can be done to it.

    A handle may also be made by hand, for an instance that another process registered.
    """

    def __init__(self, instance_id: str, client: "PrefactorCoreClient") -> None:
        super().__init__(instance_id, client)
        self._client = client

    async def start(self, timestamp: datetime | None = None) -> None:
        """Queue the start of the instance, by default now. A second call does nothing.

        A time without a zone is UTC. An instance whose first span comes before this call starts with that
        span.
        """
        await awaiting(self._start(timestamp))

    async def finish(self, status: FinishStatus = "complete", timestamp: datetime | None = None) -> None:
        """Queue the finish of the instance: ``complete``, ``failed`` or ``cancelled``. Once is enough.

        An instance that was never started is started first: the API finishes only what has begun.

        Raises:
            InvalidInputError: The status is none of these.
        """
        await awaiting(self._finish(status, timestamp))

    def span(
        self, schema_name: str, parent_span_id: str | None = None, payload: dict[str, Any] | None = None
    ) -> SpanScope:
        """Open a span for the length of an ``async with``; see ``PrefactorCoreClient.span``."""
        return self._client.span(self._instance_id, schema_name, parent_span_id, payload)

    async def create_span(
        self,
        schema_name: str,
        parent_span_id: str | None = None,
        payload: dict[str, Any] | None = None,
        started_at: datetime | None = None,
    ) -> str:
        """Open a span until ``finish_span``; see ``PrefactorCoreClient.create_span``."""
        return await self._client.create_span(
            self._instance_id, schema_name, parent_span_id, payload, started_at
        )

    async def finish_span(
        self, span_id: str, result_payload: dict[str, Any] | None = None, timestamp: datetime | None = None
    ) -> None:
        """Finish a span of ``create_span``; see ``PrefactorCoreClient.finish_span``."""
        await self._client.finish_span(span_id, result_payload, timestamp)

    async def record_quality(self, name: str, payload: dict[str, Any] | None = None) -> None:
        """Queue a quality of this instance; see ``PrefactorCoreClient.record_quality``."""
        await self._client.record_quality(self._instance_id, name, payload)

    async def __aenter__(self) -> Self:
        """Return the handle, without starting the instance."""
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Finish the instance, if it is unfinished: failed or cancelled where an exception came by."""
        if exc_type is None:
            await self.finish()
            return
        status: FinishStatus = "cancelled" if issubclass(exc_type, asyncio.CancelledError) else "failed"
        try:
            await self.finish(status)
        except PrefactorCoreError as failure:
            # The agent's own exception is on its way and must not be masked.
            logger.warning("prefactor: instance %s could not be finished: %s", self._instance_id, failure)


class InstanceRequest(Coroutine[Any, Any, AgentInstanceHandle]):
    """What ``create_agent_instance`` returns: ``await`` it for the handle, or ``async with`` it."""

    def __init__(self, creation: Coroutine[Any, Any, AgentInstanceHandle]) -> None:
        self._creation = creation
        self._handle: AgentInstanceHandle | None = None

    def __await__(self) -> Generator[Any, Any, AgentInstanceHandle]:
        return self._creation.__await__()

    def send(self, value: Any) -> Any:
        """Step the registration; part of being a coroutine."""
        return self._creation.send(value)

    def throw(self, *args: Any) -> Any:
        """Throw into the registration; part of being a coroutine."""
        return self._creation.throw(*args)

    def close(self) -> None:
        """Drop the registration before it ran; part of being a coroutine."""
        self._creation.close()

    async def __aenter__(self) -> AgentInstanceHandle:
        """Register the instance, without starting it."""
        self._handle = await self._creation
        return self._handle

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Finish the instance, if it is unfinished."""
        if self._handle is not None:
            await self._handle.__aexit__(exc_type, exc, traceback)
