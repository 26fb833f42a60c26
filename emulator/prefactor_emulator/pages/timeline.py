"""A run laid out in time: the tree of its spans, and each span's place on one common axis. Pure."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from prefactor_emulator.storage.inspection import SpanLine

_ROOM_FOR_OPEN = 0.06
_WIDTH = 1000
_NARROWEST = 3.0


class Row(NamedTuple):
    """One span in its place.

    Attributes:
        span: The span.
        depth: How many spans are above it.
        start: Where it starts on the axis, from 0 to 1. None: it has not started.
        end: Where it ends on the axis. A span that is open reaches to the axis's end.
        seconds: How long it took. None: it has not started, or is not over.
    """

    span: SpanLine
    depth: int
    start: float | None
    end: float
    seconds: float | None

    def bar(self) -> tuple[float, float] | None:
        """Tell the left end and the width of its bar, in thousandths; none is too narrow to be seen."""
        if self.start is None:
            return None
        left = min(round(self.start * _WIDTH, 1), _WIDTH - _NARROWEST)
        return left, max(_NARROWEST, round((self.end - self.start) * _WIDTH, 1))


def lay_out(spans: Sequence[SpanLine]) -> tuple[list[Row], float]:
    """Place the spans of one run.

    The axis follows from the spans alone, not from the clock: what is stored is shown the same every time.

    Returns:
        The spans, parents before their children, children in the order in which they came; and the seconds
        that the axis spans.
    """
    times = {span.id: (seconds_of(span.started_at), seconds_of(span.finished_at)) for span in spans}
    known = [moment for pair in times.values() for moment in pair if moment is not None]
    first = min(known, default=0.0)
    length = max(known, default=0.0) - first
    if any(start is not None and end is None for start, end in times.values()):
        length *= 1 + _ROOM_FOR_OPEN
    rows = []
    for span, depth in _tree(spans):
        start, end = times[span.id]
        took = None if start is None or end is None else max(0.0, end - start)
        left = None if start is None else _share(start - first, length, 0.0)
        rows.append(Row(span, depth, left, 1.0 if end is None else _share(end - first, length, 1.0), took))
    return rows, length


def search(rows: Sequence[Row], words: str) -> tuple[Sequence[Row], set[str] | None]:
    """Choose rows by what they show, or by their id.

    Returns:
        The rows that fit, each below the rows that are above it in the tree, and the ids of those that fit;
        all rows and None where nothing is searched for.
    """
    if not words:
        return rows, None
    wanted = words.casefold()
    fitting = {row.span.id for row in rows if any(wanted in text.casefold() for text in _texts(row.span))}
    shown = set(fitting)
    for row in reversed(rows):
        if row.span.id in shown and row.span.parent_span_id is not None:
            shown.add(row.span.parent_span_id)
    return [row for row in rows if row.span.id in shown], fitting


def seconds_of(timestamp: str | None) -> float | None:
    """Turn a stored time into seconds since 1970."""
    return None if timestamp is None else datetime.fromisoformat(timestamp).timestamp()


def _texts(span: SpanLine) -> tuple[str, ...]:
    return span.id, span.schema_name, span.schema_title or "", span.summary or ""


def _share(part: float, whole: float, of_nothing: float) -> float:
    return part / whole if whole > 0 else of_nothing


def _tree(spans: Sequence[SpanLine]) -> Iterator[tuple[SpanLine, int]]:
    """Walk the tree without recursion: it may be as deep as it is large."""
    children: dict[str | None, list[SpanLine]] = {}
    for span in spans:
        children.setdefault(span.parent_span_id, []).append(span)
    pending = [(span, 0) for span in reversed(children.get(None, []))]
    while pending:
        span, depth = pending.pop()
        yield span, depth
        pending += [(child, depth + 1) for child in reversed(children.get(span.id, []))]
