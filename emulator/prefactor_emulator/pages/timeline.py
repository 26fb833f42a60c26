"""A run laid out in time: the tree of its spans, and each span's place on one common axis. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, TypeAlias

from prefactor_emulator.storage.inspection import SpanLine

_ROOM_FOR_OPEN = 0.06
_WIDTH = 1000
_NARROWEST = 3.0

Node: TypeAlias = tuple[SpanLine, int]
"""A span in the tree, with the number of spans above it."""


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


class Axis(NamedTuple):
    """The time that the spans of one run take up: from when, in seconds since 1970, and how long."""

    first: float
    seconds: float

    def place(self, node: Node) -> Row:
        """Place a span."""
        span, depth = node
        start, end = seconds_of(span.started_at), seconds_of(span.finished_at)
        took = None if start is None or end is None else max(0.0, end - start)
        left = None if start is None else self._share(start, 0.0)
        return Row(span, depth, left, 1.0 if end is None else self._share(end, 1.0), took)

    def _share(self, moment: float, of_nothing: float) -> float:
        return (moment - self.first) / self.seconds if self.seconds > 0 else of_nothing


def axis_of(spans: Sequence[SpanLine]) -> Axis:
    """Lay out the axis of a run.

    It follows from the spans alone, not from the clock: what is stored is shown the same every time.
    """
    # Times are kept so that they sort as text: of thousands, two are to be read.
    known = [moment for span in spans for moment in (span.started_at, span.finished_at) if moment is not None]
    first = seconds_of(min(known, default=None)) or 0.0
    length = (seconds_of(max(known, default=None)) or 0.0) - first
    is_open = any(span.started_at is not None and span.finished_at is None for span in spans)
    return Axis(first, length * (1 + _ROOM_FOR_OPEN) if is_open else length)


def tree_of(spans: Sequence[SpanLine]) -> list[Node]:
    """Bring parents before their children; children stay in the order in which they came."""
    children: dict[str | None, list[SpanLine]] = {}
    for span in spans:
        children.setdefault(span.parent_span_id, []).append(span)
    nodes: list[Node] = []
    pending = [(span, 0) for span in reversed(children.get(None, ()))]
    while pending:  # without recursion: it may be as deep as it is large
        span, depth = pending.pop()
        nodes.append((span, depth))
        pending += [(child, depth + 1) for child in reversed(children.get(span.id, ()))]
    return nodes


def search(nodes: Sequence[Node], words: str) -> tuple[Sequence[Node], set[str] | None]:
    """Choose spans by what is shown of them, or by their id.

    Returns:
        The spans that fit, each below those that are above it in the tree, and the ids of those that fit; all
        spans and None where nothing is searched for.
    """
    if not words:
        return nodes, None
    wanted = words.casefold()
    texts = ((span.id, span.schema_name, span.schema_title or "", span.summary or "") for span, _ in nodes)
    fitting = {each[0] for each in texts if wanted in "\n".join(each).casefold()}
    shown = set(fitting)
    for span, _ in reversed(nodes):
        if span.id in shown and span.parent_span_id is not None:
            shown.add(span.parent_span_id)
    return [(span, depth) for span, depth in nodes if span.id in shown], fitting


def seconds_of(timestamp: str | None) -> float | None:
    """Turn a stored time into seconds since 1970."""
    return None if timestamp is None else datetime.fromisoformat(timestamp).timestamp()
