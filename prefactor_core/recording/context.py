"""What a span looks like to its agent, whichever face it has: the steps, each made at once.

The faces add how a caller waits.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

from prefactor_core.arguments import as_time
from prefactor_core.models import FinishStatus
from prefactor_core.payloads import as_object, snapshot
from prefactor_core.recording.handover import Wait
from prefactor_core.recording.records import OpenSpan
from prefactor_core.recording.spans import SpanRecorder

logger = logging.getLogger("prefactor_core.recording")

ERROR_KEY: Final = "error"
"""The key of a failed span's result under which an exception from its body stands."""


class BaseSpanContext:
    """A span under way. Every step is optional: what is left out happens when the context is left."""

    _ended = True  # until there is a span to end
    _started_by_hand = False

    def __init__(self, span: OpenSpan, recorder: SpanRecorder) -> None:
        self._span = span
        self._recorder = recorder
        self._result: Mapping[str, Any] | None = None
        self._status: FinishStatus = "complete"
        self._ended = False

    def __del__(self) -> None:
        # One that was built by hand may hold anything, and a finaliser must not raise.
        if not self._ended and not getattr(self._span, "over", True):
            self._recorder.abandoned(self._span, self._result)

    @property
    def id(self) -> str:
        """The span's id: the same before and after ``start``."""
        return self._span.id

    def set_payload(self, data: dict[str, Any]) -> None:
        """Add to what ``start`` will send; new values replace those of the same name.

        After the start it is too late: a warning says so.
        """
        if self._is_put:
            self._recorder.warn_once(self._span, "set_payload() after the start: ignored")
            return
        self._span.payload = {**as_object(self._span.payload, "payload"), **snapshot(data, "payload")}

    def set_result(self, data: Mapping[str, Any]) -> None:
        """Add to what is sent when the span ends. Does not end it."""
        added = self._recorder.encode_result(self._span, data)
        earlier = self._result
        self._result = added if earlier is None else {**as_object(earlier, "result"), **added.decode()}

    @property
    def ended(self) -> bool:
        """Whether the span was ended by this context."""
        return self._ended

    @property
    def _is_put(self) -> bool:
        return self._ended or self._span.over or self._span.status != "pending"

    def _start(self, payload: Mapping[str, Any] | None, started_at: datetime | None) -> Wait | None:
        if self._ended:
            return None
        if self._span.status == "pending" and not self._span.over:
            _, wait = self._recorder.start(self._span, payload, started_at)
            self._started_by_hand = True
            return wait
        self._recorder.check()
        if payload is not None and not self._started_by_hand and not self._span.over:
            self._recorder.warn_once(
                self._span, "started when its first child was: the payload of start() came too late"
            )
        return None

    def _end(
        self, status: FinishStatus, result: Mapping[str, Any] | None, timestamp: datetime | None
    ) -> Wait | None:
        if self._ended:
            return None
        if timestamp is not None:
            as_time(timestamp, "timestamp")  # refused before anything is changed
        self._status = status
        if result is None:
            result = self._result
        elif self._result is not None:
            self.set_result(result)
            result = self._result
        wait = None
        if self._span.over:  # finish_span() was called with its id
            self._recorder.check()
        else:
            _, wait = self._recorder.finish(self._span, result, status, timestamp=timestamp)
        self._ended = True
        return wait

    def _cancel(self, timestamp: datetime | None) -> Wait | None:
        if self._is_put:
            return self._end("cancelled", None, timestamp)
        _, wait = self._recorder.cancel_unstarted(self._span, timestamp)
        self._ended = True
        return wait

    def _finish(self) -> Wait | None:
        return self._end(self._status, None, None)

    def leave(self, exc_type: type[BaseException] | None, exc: BaseException | None) -> Wait | None:
        """End the span as its block was left; with an exception nothing is raised here, whatever happens."""
        if exc is None and exc_type is None:
            return self._finish()
        try:
            if isinstance(exc, asyncio.CancelledError | GeneratorExit):  # nobody waits for it any more
                return self._cancel(None)
            return self._end("failed", {ERROR_KEY: _describe(exc_type, exc)}, None)
        except Exception as failure:  # noqa: BLE001 -- the agent's own exception must not be masked
            self.report(failure)
            return None

    def report(self, failure: Exception) -> None:
        """Say that the span could not be ended, where an exception of the agent's own goes before."""
        logger.warning("prefactor: span %s could not be ended: %s", self.id, failure)


C = TypeVar("C", bound=BaseSpanContext)


class BaseSpanScope(ABC, Generic[C]):
    """What ``span()`` returns: a block to enter and to leave, by hand too, even in different tasks.

    An exception in the body ends the span as failed, with the exception's type and message in its result;
    a cancellation ends it as cancelled. Either goes on to the caller, whatever happens here.
    """

    def __init__(
        self,
        recorder: Callable[[], SpanRecorder],
        instance_id: str,
        schema_name: str,
        parent_span_id: str | None,
        payload: dict[str, Any] | None,
    ) -> None:
        self._recorder = recorder
        self._arguments = instance_id, schema_name, parent_span_id, payload
        self._context: C | None = None

    @abstractmethod
    def _new_context(self, span: OpenSpan, recorder: SpanRecorder) -> C: ...

    def _enter(self) -> C:
        """Open the span; nothing is sent yet."""
        recorder = self._recorder()
        self._context = context = self._new_context(recorder.open(*self._arguments), recorder)
        return context

    def _leave(self, exc_type: type[BaseException] | None, exc: BaseException | None) -> Wait | None:
        """End the span, if it has not been ended."""
        if self._context is None:
            return None
        if exc is None and exc_type is None and self._context.ended:
            self._recorder().check()
        return self._context.leave(exc_type, exc)

    def _report(self, failure: Exception) -> None:
        if self._context is not None:
            self._context.report(failure)


def _describe(exc_type: type[BaseException] | None, exc: BaseException | None) -> dict[str, str]:
    kind = exc_type or type(exc)
    try:
        message = str(exc) if exc is not None else ""
    except Exception:  # noqa: BLE001 -- an exception's own __str__ may raise anything
        message = "<no message: its __str__ raised>"
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return {"type": name, "message": message}
