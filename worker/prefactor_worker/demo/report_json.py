"""What is reported as plain JSON."""

from collections.abc import Iterable
from typing import Any

from prefactor_worker.demo.documents import Documents
from prefactor_worker.demo.outcome import AgentRun, Outcome
from prefactor_worker.demo.readback import Trace, TraceSpan


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Return everything as plain JSON; times are in seconds."""
    summary, timing, readback = outcome.summary, outcome.timing, outcome.readback
    return {
        "api_url": outcome.api_url,
        "ok": not outcome.problems,
        "problems": outcome.problems,
        **documents_json(outcome.documents),
        "answers": answers_json(outcome.runs),
        "traces": None if readback is None else traces_json(readback.traces),
        "delivery": {
            "put": summary.put,
            "delivered": summary.delivered,
            "dead_lettered": summary.dead_lettered,
            "dropped": summary.dropped,
            "left": summary.left,
            "effects": None if readback is None else readback.effects,
            "requests": None if readback is None else readback.requests,
        },
        "timing": {
            "starting": timing.starting,
            "running": timing.running,
            "closing": timing.closing,
            "telemetry": timing.telemetry.total,
            "telemetry_share": timing.telemetry.total / timing.running,
            "spans": timing.telemetry.spans,
            "span_median": timing.telemetry.span_median,
            "span_p99": timing.telemetry.span_p99,
        },
    }


def documents_json(documents: Documents) -> dict[str, Any]:
    """Return what was read, and what was not."""
    return {
        "files": [file.name for file in documents.files],
        "skipped": {file.name: file.reason for file in documents.skipped},
    }


def answers_json(runs: Iterable[AgentRun]) -> list[dict[str, Any]]:
    """Return what the agents found."""
    return [
        {
            "question": run.question,
            "instance_id": run.instance_id,
            "sentences": [{"text": s.text, "source": s.source} for s in run.sentences],
            "failure": run.failure,
        }
        for run in runs
    ]


def traces_json(traces: Iterable[Trace]) -> list[dict[str, Any]]:
    """Return the instances with their spans, nested."""
    return [_trace_json(trace) for trace in traces]


def _trace_json(trace: Trace) -> dict[str, Any]:
    return {
        "instance_id": trace.instance_id,
        "status": trace.status,
        "seconds": trace.seconds,
        "spans": [_span_json(span) for span in trace.spans],
    }


def _span_json(span: TraceSpan) -> dict[str, Any]:
    return {
        "id": span.id,
        "parent_span_id": span.parent_id,
        "schema_name": span.schema_name,
        "status": span.status,
        "seconds": span.seconds,
        "payload": span.payload,
        "result_payload": span.result,
        "children": [_span_json(child) for child in span.children],
    }
