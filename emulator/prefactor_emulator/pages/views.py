"""What each page shows, made from what was read. Pure: any thread can do it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlencode

from prefactor_emulator.model import JsonObject, Status
from prefactor_emulator.pages.render import render
from prefactor_emulator.pages.timeline import axis_of, search, tree_of
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
    shown = found[:INSTANCES_SHOWN]
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
        run: The instance.
        lines: All its spans.
        words: What was searched for among them.
        first: The number of the first row to show.
        span_id: A span to show opened, wherever it is.
    """
    axis = axis_of(lines)
    nodes, fitting = search(tree_of(lines), words)
    place = next((place for place, (span, _) in enumerate(nodes) if span.id == span_id), None)
    first = first if place is None else place - place % SPANS_SHOWN
    first = min(first, max(0, len(nodes) - 1))
    last = min(first + SPANS_SHOWN, len(nodes))
    here = f"/instances/{run['id']}"
    ways = {"Earlier": _address(here, q=words, **{"from": max(0, first - SPANS_SHOWN)}) if first else ""}
    if last < len(nodes):
        ways["Further"] = _address(here, q=words, **{"from": last})
    return render(
        "run.html",
        run=run,
        counts=Counter(line.status for line in lines),
        flagged=sum(line.flagged for line in lines),
        total=len(lines),
        seconds=axis.seconds,
        rows=[axis.place(node) for node in nodes[first:last]],
        fitting=fitting,
        place=(first + 1, last, len(nodes)),
        opened=span_id,
        q=words,
        ways=ways,
    )


def _address(path: str, **choices: object) -> str:
    chosen = urlencode({name: value for name, value in choices.items() if value != ""})
    return f"{path}?{chosen}" if chosen else path
