"""One span as the agent sees it: a context that can be started, given results and ended."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from prefactor_core.arguments import as_time
from prefactor_core.models import FinishStatus
from prefactor_core.payloads import EncodedJson, as_object, snapshot

if TYPE_CHECKING:  # the package of the managers imports handles, and those import this
    from prefactor_core.managers.span import SpanManager

logger = logging.getLogger(__name__)

ERROR_KEY: Final = "error"
"""The key of a failed span's result under which an exception from its body stands."""


class SpanContext:
    """A span under way. Every step is optional: what is left out happens when the context is left.

    Args:
        temp_id: The span's id, from ``SpanManager.prepare``; it is the final one.
        span_manager: Where the span is open.
        default_payload: What ``start`` sends if it is given nothing.
    """

    _finished = True  # until there is a span to finish

    def __init__(
        self, temp_id: str, span_manager: "SpanManager", default_payload: Mapping[str, Any] | None = None
    ) -> None:
        self._id = temp_id
        self._manager = span_manager
        # Kept as JSON while nothing is added, so that it is written once.
        self._payload: Mapping[str, Any] = (
            default_payload
            if isinstance(default_payload, EncodedJson)
            else as_object(default_payload, "payload")
        )
        self._result: Mapping[str, Any] | None = None
        self._status: FinishStatus = "complete"
        self._started = False
        self._finished = False

    def __del__(self) -> None:
        if not self._finished:
            self._manager.abandoned(self._id, self._result)

    @property
    def id(self) -> str:
        """The span's id: the same before and after ``start``."""
        return self._id

    def set_payload(self, data: dict[str, Any]) -> None:
        """Add to what ``start`` will send; new values replace those of the same name.

        After the start it is too late: a warning says so.
        """
        if self._is_put():
            self._manager.warn_once(self._id, "set_payload() after the start: ignored")
            return
        self._payload = {**as_object(self._payload, "payload"), **snapshot(data, "payload")}
        self._manager.get_span(self._id).payload = self._payload

    def set_result(self, data: dict[str, Any]) -> None:
        """Add to what is sent when the span ends. Does not end it."""
        added = self._manager.encode_result(self._id, data)
        earlier = self._result
        self._result = added if earlier is None else {**as_object(earlier, "result"), **added.decode()}

    async def start(self, payload: dict[str, Any] | None = None, started_at: datetime | None = None) -> None:
        """Put the span as active, by default as of now with what it was opened with. Repeating does nothing.

        A span that is not started by this call began when it was opened.

        Raises:
            InvalidPayloadError: The payload cannot be sent; the span is not started.
        """
        if self._started or self._finished or not self._manager.is_open(self._id):
            return
        chosen = self._payload if payload is None else payload
        if not await self._manager.start(self._id, chosen, started_at) and payload is not None:
            self._manager.warn_once(
                self._id, "started when its first child was: the payload of start() came too late"
            )
        self._started = True

    async def complete(self, result: dict[str, Any] | None = None, timestamp: datetime | None = None) -> None:
        """End the span as complete. ``result`` is added to that of ``set_result``."""
        await self._end("complete", result, timestamp)

    async def fail(self, result: dict[str, Any] | None = None, timestamp: datetime | None = None) -> None:
        """End the span as failed. ``result``, the error say, is added to that of ``set_result``."""
        await self._end("failed", result, timestamp)

    async def cancel(self, timestamp: datetime | None = None) -> None:
        """End the span as cancelled; before ``start``, as one that never began."""
        if not self._finished and not self._is_put():
            await self._manager.cancel_unstarted(self._id, timestamp)
            self._finished = True
            return
        await self._end("cancelled", None, timestamp)

    async def finish(self) -> None:
        """End the span with the status set last, ``complete`` by default. A second call does nothing."""
        await self._end(self._status, None, None)

    def _is_put(self) -> bool:
        if self._started or self._finished or not self._manager.is_open(self._id):
            return True
        return self._manager.get_span(self._id).status != "pending"

    async def _end(
        self, status: FinishStatus, result: dict[str, Any] | None, timestamp: datetime | None
    ) -> None:
        if self._finished:
            return
        as_time(timestamp, "timestamp")  # refused before anything is changed
        self._status = status
        if result is not None:
            self.set_result(result)
        if self._manager.is_open(self._id):  # else finish_span() was called with its id
            await self._manager.finish(self._id, self._result, status, timestamp=timestamp)
        self._finished = True


class SpanScope:
    """What ``span()`` returns: use ``async with``, or enter and leave it by hand, even in different tasks.

    An exception in the body ends the span as failed, with the exception's type and message in its result;
    a cancellation ends it as cancelled. Either goes on to the caller, whatever happens here.
    """

    def __init__(self, open_span: Callable[[], SpanContext], check: Callable[[], object]) -> None:
        self._open_span = open_span
        self._check = check
        self._context: SpanContext | None = None

    async def __aenter__(self) -> SpanContext:
        """Open the span; nothing is sent yet."""
        self._context = self._open_span()
        return self._context

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the span, if it has not been ended."""
        context = self._context
        if context is None:
            return
        if exc is None and exc_type is None:
            self._check()
            await context.finish()
            return
        try:
            self._check()
            if isinstance(exc, asyncio.CancelledError | GeneratorExit):  # nobody waits for it any more
                await context.cancel()
            else:
                await context.fail({ERROR_KEY: _describe(exc_type, exc)})
        except Exception as failure:  # noqa: BLE001 -- the agent's own exception must not be masked
            logger.warning("prefactor: span %s could not be ended: %s", context.id, failure)


def _describe(exc_type: type[BaseException] | None, exc: BaseException | None) -> dict[str, str]:
    kind = exc_type or type(exc)
    try:
        message = str(exc) if exc is not None else ""
    except Exception:  # noqa: BLE001 -- an exception's own __str__ may raise anything
        message = "<no message: its __str__ raised>"
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return {"type": name, "message": message}
