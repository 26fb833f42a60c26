"""One span as an agent in asyncio sees it: a context that can be started, given results and ended."""

from datetime import datetime
from types import TracebackType
from typing import Any

from prefactor_core.recording.context import ERROR_KEY, BaseSpanContext, BaseSpanScope
from prefactor_core.recording.records import OpenSpan
from prefactor_core.recording.spans import SpanRecorder

__all__ = ["ERROR_KEY", "SpanContext", "SpanScope"]


class SpanContext(BaseSpanContext):
    """A span under way. Every step is optional: what is left out happens when the context is left."""

    async def start(self, payload: dict[str, Any] | None = None, started_at: datetime | None = None) -> None:
        """Put the span as active, by default as of now with what it was opened with. Repeating does nothing.

        A span that is not started by this call began when it was opened.

        Raises:
            InvalidPayloadError: The payload cannot be sent; the span is not started.
        """
        wait = self._start(payload, started_at)
        if wait is not None:
            await wait

    async def complete(self, result: dict[str, Any] | None = None, timestamp: datetime | None = None) -> None:
        """End the span as complete. ``result`` is added to that of ``set_result``."""
        wait = self._end("complete", result, timestamp)
        if wait is not None:
            await wait

    async def fail(self, result: dict[str, Any] | None = None, timestamp: datetime | None = None) -> None:
        """End the span as failed. ``result``, the error say, is added to that of ``set_result``."""
        wait = self._end("failed", result, timestamp)
        if wait is not None:
            await wait

    async def cancel(self, timestamp: datetime | None = None) -> None:
        """End the span as cancelled; before ``start``, as one that never began."""
        wait = self._cancel(timestamp)
        if wait is not None:
            await wait

    async def finish(self) -> None:
        """End the span with the status set last, ``complete`` by default. A second call does nothing."""
        wait = self._finish()
        if wait is not None:
            await wait


class SpanScope(BaseSpanScope[SpanContext]):
    """What ``span()`` returns: use ``async with``, or enter and leave it by hand, even in different tasks.

    An exception in the body ends the span as failed, with the exception's type and message in its result;
    a cancellation ends it as cancelled. Either goes on to the caller, whatever happens here.
    """

    def _new_context(self, span: OpenSpan, recorder: SpanRecorder) -> SpanContext:
        return SpanContext(span, recorder)

    async def __aenter__(self) -> SpanContext:
        """Open the span; nothing is sent yet."""
        return self._enter()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the span, if it has not been ended."""
        wait = self._leave(exc_type, exc)
        if wait is None:
            return
        try:
            await wait
        except Exception as failure:
            if exc is None:
                raise
            self._report(failure)  # the agent's own exception must not be masked
