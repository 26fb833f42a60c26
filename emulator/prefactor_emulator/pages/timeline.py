"""A run laid out in time: the tree of its spans, and each span's place on one common axis. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from prefactor_emulator.model import Span

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ROOM_FOR_OPEN = 0.06


@dataclass(frozen=True, slots=True)
class Row:
    """One span in its place.

    Attributes:
        span: The span.
        depth: How many spans are above it.
        start: Where it starts on the axis, from 0 to 1. None: it has not started.
        end: Where it ends on the axis. A span that is open reaches to the axis's end.
        seconds: How long it took. None: it has not started, or is not over.
    """

    span: Span
    depth: int
    start: float | None
    end: float
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Timeline:
    """All spans of a run, parents before their children, children in the order in which they came.

    Attributes:
        rows: The spans.
        seconds: What the axis spans.
    """

    rows: tuple[Row, ...]
    seconds: float


def lay_out(spans: Sequence[Span]) -> Timeline:
    """Place the spans of one run.

    The axis follows from the spans alone, not from the clock: what is stored is shown the same every time.
    """
    starts = {span.id: seconds_of(span.started_at) for span in spans}
    ends = {span.id: seconds_of(span.finished_at) for span in spans}
    known = [moment for moment in (*starts.values(), *ends.values()) if moment is not None]
    first = min(known, default=0.0)
    length = max(known, default=0.0) - first
    if any(starts[span.id] is not None and ends[span.id] is None for span in spans):
        length *= 1 + _ROOM_FOR_OPEN
    rows = []
    for span, depth in _tree(spans):
        start, end = starts[span.id], ends[span.id]
        took = None if start is None or end is None else max(0.0, end - start)
        rows.append(
            Row(
                span=span,
                depth=depth,
                start=None if start is None else _share(start - first, length, 0.0),
                end=1.0 if end is None else _share(end - first, length, 1.0),
                seconds=took,
            )
        )
    return Timeline(tuple(rows), length)


def seconds_of(timestamp: str | None) -> float | None:
    """Turn a stored time into seconds since 1970."""
    if timestamp is None:
        return None
    return (datetime.fromisoformat(timestamp) - _EPOCH).total_seconds()


def _share(part: float, whole: float, of_nothing: float) -> float:
    return part / whole if whole > 0 else of_nothing


def _tree(spans: Sequence[Span]) -> Iterator[tuple[Span, int]]:
    """Walk the tree without recursion: it may be as deep as it is large."""
    children: dict[str | None, list[Span]] = {}
    for span in spans:
        children.setdefault(span.parent_span_id, []).append(span)
    pending = [(span, 0) for span in reversed(children.get(None, []))]
    while pending:
        span, depth = pending.pop()
        yield span, depth
        pending += [(child, depth + 1) for child in reversed(children.get(span.id, []))]
