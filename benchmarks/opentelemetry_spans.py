"""What a span costs with OpenTelemetry's SDK, for ``benchmarks.span_cost``; the exporter drops everything.

``python -m benchmarks.opentelemetry_spans SPANS THREADS``: runs where that SDK is installed, and prints JSON.
"""

import asyncio
import json
import sys
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from benchmarks.bursts import PAYLOAD, RESULT, Cost, measure, measure_threads


class _Dropping(SpanExporter):
    def __init__(self) -> None:
        self.dropped = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.dropped += len(spans)
        return SpanExportResult.SUCCESS


async def _cost(spans: int, threads: int) -> Cost:
    exporter = _Dropping()
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=max(2_048, spans)))
    tracer = provider.get_tracer("benchmark")

    def record() -> None:
        with tracer.start_as_current_span("bench:step", attributes=PAYLOAD) as span:
            span.set_attributes(RESULT)

    async def record_in_loop() -> None:
        with tracer.start_as_current_span("bench:step", attributes=PAYLOAD) as span:
            span.set_attributes(RESULT)

    cost = measure_threads(record, spans, threads) if threads else await measure(record_in_loop, spans)
    provider.shutdown()
    assert exporter.dropped == spans, exporter.dropped
    return cost


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_cost(int(sys.argv[1]), int(sys.argv[2])))._asdict()))
