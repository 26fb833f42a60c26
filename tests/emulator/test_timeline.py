"""Where spans lie on the axis, and how lengths of time are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefactor_emulator.pages.render import duration
from prefactor_emulator.pages.timeline import Axis, Row, axis_of, search, tree_of
from prefactor_emulator.storage.inspection import SpanLine


def a_span(
    span_id: str,
    start: str | None = None,
    end: str | None = None,
    parent: str | None = None,
    summary: str | None = None,
) -> SpanLine:
    return SpanLine(span_id, parent, "plain", None, "active", summary, 0, start, end)


def lay_out(spans: list[SpanLine]) -> tuple[list[Row], Axis]:
    axis = axis_of(spans)
    return [axis.place(node) for node in tree_of(spans)], axis


def test_an_open_span_reaches_to_the_end_which_is_behind_everything_known() -> None:
    spans = [
        a_span("a", "2026-03-01T10:00:00Z"),
        a_span("b", "2026-03-01T10:00:05Z", "2026-03-01T10:00:10Z"),
    ]
    (first, second), axis = lay_out(spans)
    assert axis.seconds == pytest.approx(10.6)
    assert (first.start, first.end, first.seconds) == (0, 1, None)
    assert (second.seconds, second.end < 1) == (5, True)


def test_no_spans_spans_of_no_length_and_of_times_gone_wrong() -> None:
    assert lay_out([]) == ([], (0, 0))
    same = "2026-03-01T10:00:00Z"
    (row,), _ = lay_out([a_span("a", same, same)])
    assert (row.start, row.end, row.seconds) == (0, 1, 0)
    (backwards,), _ = lay_out([a_span("a", "2026-03-01T10:00:05Z", same)])
    assert backwards.seconds == 0
    lay_out([a_span("a", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z")])


MOMENTS = st.none() | st.datetimes().map(lambda moment: moment.isoformat() + "Z")


@given(st.lists(st.tuples(MOMENTS, MOMENTS, st.integers(min_value=0)), max_size=20))
def test_every_span_is_on_the_axis_once_and_below_its_parent(
    drawn: list[tuple[str | None, str | None, int]],
) -> None:
    spans = [
        a_span(str(index), start, end, str(parent % index) if index and parent % 3 else None)
        for index, (start, end, parent) in enumerate(drawn)
    ]
    rows, _ = lay_out(spans)
    assert sorted(row.span.id for row in rows) == sorted(span.id for span in spans)
    depths: dict[str | None, int] = {None: -1}
    for row in rows:
        assert row.depth == depths[row.span.parent_span_id] + 1
        depths[row.span.id] = row.depth
        assert row.start is None or 0 <= row.start <= 1
        assert 0 <= row.end <= 1
        bar = row.bar()
        assert bar is None or 0 <= bar[0] <= bar[0] + bar[1] <= 1003


def test_a_search_shows_what_fits_below_what_is_above_it() -> None:
    spans = [a_span("top"), a_span("middle", parent="top"), a_span("deep", parent="middle", summary="Straße")]
    spans += [a_span("other"), a_span("below", parent="deep")]
    nodes = tree_of(spans)
    shown, fitting = search(nodes, "STRASSE")
    assert [span.id for span, _ in shown] == ["top", "middle", "deep"]
    assert fitting == {"deep"}
    assert search(nodes, "") == (nodes, None)
    assert search(nodes, "nothing like it") == ([], set())


def test_lengths_of_time() -> None:
    words = {0: "0 ms", 0.0001234: "0.123 ms", 0.25: "250 ms", 0.9996: "1 s", 1.5: "1.5 s", 59.94: "59.9 s"}
    words |= {59.97: "1 min 0 s", 61: "1 min 1 s", 3599.9: "1 h 0 min", 90000: "1 d 1 h"}
    assert {seconds: duration(seconds) for seconds in words} == words
