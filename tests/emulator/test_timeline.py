"""Where spans lie on the axis, and how lengths of time are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefactor_emulator.markup import duration

from prefactor_emulator.model import Span
from prefactor_emulator.pages.timeline import lay_out


def a_span(span_id: str, start: str | None = None, end: str | None = None, parent: str | None = None) -> Span:
    return Span(span_id, "i", parent, "plain", "active", start, end)


def test_an_open_span_reaches_to_the_end_which_is_behind_everything_known() -> None:
    spans = [
        a_span("a", "2026-03-01T10:00:00Z"),
        a_span("b", "2026-03-01T10:00:05+00:00", "2026-03-01T11:00:10+01:00"),
    ]
    timeline = lay_out(spans)
    assert timeline.seconds == pytest.approx(10.6)
    first, second = timeline.rows
    assert (first.start, first.end, first.seconds) == (0, 1, None)
    assert (second.seconds, second.end < 1) == (5, True)


def test_no_spans_spans_of_no_length_and_of_times_gone_wrong() -> None:
    nothing = lay_out([])
    assert (nothing.rows, nothing.seconds) == ((), 0)
    same = "2026-03-01T10:00:00Z"
    (row,) = lay_out([a_span("a", same, same)]).rows
    assert (row.start, row.end, row.seconds) == (0, 1, 0)
    backwards = lay_out([a_span("a", "2026-03-01T10:00:05Z", same)])
    assert backwards.rows[0].seconds == 0
    lay_out([a_span("a", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00")])


MOMENTS = st.none() | st.datetimes().map(lambda moment: moment.isoformat() + "Z")


@given(st.lists(st.tuples(MOMENTS, MOMENTS, st.integers(min_value=0)), max_size=20))
def test_every_span_is_on_the_axis_once_and_below_its_parent(
    drawn: list[tuple[str | None, str | None, int]],
) -> None:
    spans = [
        a_span(str(index), start, end, str(parent % index) if index and parent % 3 else None)
        for index, (start, end, parent) in enumerate(drawn)
    ]
    rows = lay_out(spans).rows
    assert sorted(row.span.id for row in rows) == sorted(span.id for span in spans)
    depths: dict[str | None, int] = {None: -1}
    for row in rows:
        assert row.depth == depths[row.span.parent_span_id] + 1
        depths[row.span.id] = row.depth
        assert row.start is None or 0 <= row.start <= 1
        assert 0 <= row.end <= 1


def test_lengths_of_time() -> None:
    words = {0: "0 ms", 0.0001234: "0.123 ms", 0.25: "250 ms", 0.9996: "1 s", 1.5: "1.5 s", 59.94: "59.9 s"}
    words |= {59.97: "1 min 0 s", 61: "1 min 1 s", 3599.9: "1 h 0 min", 90000: "1 d 1 h"}
    assert {seconds: duration(seconds) for seconds in words} == words
