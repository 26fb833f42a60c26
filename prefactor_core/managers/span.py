"""The manager of spans: the recorder's calls, by the span's id, for asyncio."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from prefactor_core.models import FinishStatus, Span
from prefactor_core.recording.faces import awaited, awaiting
from prefactor_core.recording.spans import SpanRecorder


class SpanManager:
    """Records the spans of one client; the rules are those of its ``SpanRecorder``.

    A span that is not open raises ``SpanNotFoundError``.
    """

    def __init__(self, recorder: SpanRecorder) -> None:
        self._recorder = recorder
        self.create = awaited(recorder.create)

    def prepare(
        self,
        instance_id: str,
        schema_name: str,
        parent_span_id: str | None = None,
        payload: dict[str, Any] | None = None,
    ) -> str:
        """Open a span and return its id; see ``SpanRecorder.open``."""
        return self._recorder.open(instance_id, schema_name, parent_span_id, payload).id

    async def start(
        self, temp_id: str, payload: Mapping[str, Any] | None = None, started_at: datetime | None = None
    ) -> bool:
        """Start a prepared span; see ``SpanRecorder.start``."""
        return await awaiting(self._recorder.start(self._recorder.find(temp_id), payload, started_at))

    async def finish(
        self,
        span_id: str,
        result_payload: Mapping[str, Any] | None = None,
        status: FinishStatus = "complete",
        idempotency_key: str | None = None,
        timestamp: datetime | None = None,
    ) -> None:
        """Finish an open span; see ``SpanRecorder.finish``."""
        span = self._recorder.find(span_id)
        await awaiting(self._recorder.finish(span, result_payload, status, idempotency_key, timestamp))

    async def cancel_unstarted(self, temp_id: str, timestamp: datetime | None = None) -> None:
        """Cancel a prepared span; see ``SpanRecorder.cancel_unstarted``."""
        await awaiting(self._recorder.cancel_unstarted(self._recorder.find(temp_id), timestamp))

    def get_span(self, span_id: str) -> Span:
        """Return what is known of an open span now."""
        return self._recorder.find(span_id).as_model()
