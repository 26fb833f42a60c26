"""What each page shows, made from what was read. Pure: any thread can do it."""

from collections.abc import Mapping, Sequence
from typing import Final, cast
from urllib.parse import urlencode

from prefactor_emulator.model import JsonObject, Status
from prefactor_emulator.pages.render import render
from prefactor_emulator.pages.timeline import lay_out, search, seconds_of
from prefactor_emulator.storage.inspection import SpanLine

INSTANCES_SHOWN: Final = 100
SPANS_SHOWN: Final = 500


def instances_page(
    found: Sequence[JsonObject], counts: Mapping[str, int], words: str, status: str, before: int | None
) -> str:
    """Lay out the list.

    Args:
        found: The newest instances, one more than are shown if there are older ones.
        counts: How many there are in each state.
        words: What was searched for.
        status: The state by which they were chosen, if any.
        before: What all of them came before; None: these are the newest of all.
    """
    shown = [instance | {"seconds": _took(instance)} for instance in found[:INSTANCES_SHOWN]]
    ways = {"Newest": "" if before is None else _address("/", q=words, status=status)}
    if len(found) > INSTANCES_SHOWN:
        ways["Older"] = _address("/", q=words, status=status, before=shown[-1]["seq"])
    return render(
        "list.html",
        instances=shown,
        filters=[
            (name, counts.get(name, 0) if name else sum(counts.values()), _address("/", q=words, status=name))
            for name in ("", *Status)
        ],
        q=words,
        status=status,
        ways=ways,
    )


def run_page(run: JsonObject, lines: Sequence[SpanLine], words: str, first: int, span_id: str) -> str:
    """Lay out a run: what became of it, its qualities, and its spans as a tree in time.

    Args:
        run: The instance, with its spans counted.
        lines: All its spans.
        words: What was searched for among them.
        first: The number of the first row to show.
        span_id: A span to show opened, wherever it is.
    """
    timeline = lay_out(lines)
    rows, fitting = search(timeline.rows, words)
    place = next((place for place, row in enumerate(rows) if row.span.id == span_id), None)
    first = first if place is None else place - place % SPANS_SHOWN
    last = min(first + SPANS_SHOWN, len(rows))
    here = f"/instances/{run['id']}"
    ways = {"Earlier": _address(here, q=words, **{"from": max(0, first - SPANS_SHOWN)}) if first else ""}
    if last < len(rows):
        ways["Further"] = _address(here, q=words, **{"from": last})
    return render(
        "run.html",
        run=run | {"seconds": _took(run), "flagged": sum(line.flagged for line in lines)},
        timeline=timeline,
        rows=rows[first:last],
        fitting=fitting,
        place=(first + 1, last, len(rows)),
        opened=span_id,
        q=words,
        ways=ways,
    )


def span_page(span: JsonObject) -> str:
    """Lay out one span; the page of its run shows the same when the span is opened there."""
    return render("span.html", span=span, run=address_in_run(span))


def missing_page() -> str:
    """Lay out the answer to an address under which there is nothing."""
    return render("missing.html")


def address_in_run(span: JsonObject) -> str:
    """Tell where the page of a run shows this span opened."""
    return f"/instances/{span['agent_instance_id']}?span={span['id']}#s-{span['id']}"


def _address(path: str, **choices: object) -> str:
    chosen = urlencode({name: value for name, value in choices.items() if value != ""})
    return f"{path}?{chosen}" if chosen else path


def _took(instance: JsonObject) -> float | None:
    start, end = (seconds_of(cast("str | None", instance[name])) for name in ("started_at", "finished_at"))
    return None if start is None or end is None else max(0.0, end - start)
