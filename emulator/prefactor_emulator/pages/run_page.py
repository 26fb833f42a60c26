"""The pages of one run and of one span in it."""

from collections.abc import Sequence
from typing import cast

from prefactor_emulator.model import JsonObject, Span
from prefactor_emulator.pages.markup import badge, duration, folded, moment, page, pretty, text
from prefactor_emulator.pages.timeline import Row, Timeline, lay_out

PAGE_SIZE = 2000
_DEEPEST = 16
_WIDTH = 1000
_TICKS = 4


def run_page(run: JsonObject, spans: Sequence[Span], first: int) -> str:
    """Lay out a run: what became of it, its qualities, and its spans as a tree in time.

    Args:
        run: The instance.
        spans: All its spans.
        first: The number of the first row to show.
    """
    version = cast("JsonObject", run["agent_version"])
    timeline = lay_out(spans)
    title = str(version["name"])
    reason = run["termination_reason"]
    told = "" if reason is None else f"<p class='reason'>Terminated: {text(reason)}</p>"
    registration = {name: value for name, value in run.items() if name != "quality"}
    return page(
        f"{title} {run['id']}",
        f"<h1>{text(title)} {badge(str(run['status']))}</h1>{told}{_facts(run)}"
        f"{folded('Registration', pretty(registration), 'registration')}"
        f"{_quality(run)}"
        f"<h2>{len(spans):,} {'span' if len(spans) == 1 else 'spans'}</h2>"
        f"{_tree(timeline, first)}{_ways(str(run['id']), len(timeline.rows), first)}",
    )


def span_page(span: JsonObject) -> str:
    """Lay out one span; the page of its run shows the same when the span is opened there."""
    instance = text(span["agent_instance_id"])
    result = span["result_payload"]
    parent = span["parent_span_id"]
    facts = _list(
        ("Span", f"<code>{text(span['id'])}</code>"),
        ("Below", f"<code>{text(parent)}</code>" if parent else ""),
        ("Started", moment(span["started_at"])),
        ("Finished", moment(span["finished_at"])),
    )
    return page(
        str(span["schema_name"]),
        f"<p><a href='/instances/{instance}'>The run</a></p>"
        f"<h1>{text(span['schema_name'])} {badge(str(span['status']))}</h1><article>{facts}"
        f"<h3>Payload</h3>{pretty(span['payload'])}"
        f"{'' if result is None else f'<h3>Result</h3>{pretty(result)}'}</article>",
    )


def missing_page() -> str:
    """Lay out the answer to an address under which there is nothing."""
    return page("Nothing here", "<h1>Nothing here</h1><p><a href='/'>All instances</a></p>")


def _quality(run: JsonObject) -> str:
    qualities = cast("JsonObject", run["quality"]).items()
    shown = "".join(f"<li><b>{text(name)}</b>{pretty(value)}</li>" for name, value in qualities)
    return f"<section id='quality'><h2>Quality</h2><ul>{shown}</ul></section>" if shown else ""


def _facts(run: JsonObject) -> str:
    return _list(
        ("Instance", f"<code>{text(run['id'])}</code>"),
        ("Registered", moment(run["registered_at"])),
        ("Started", moment(run["started_at"])),
        ("Finished", moment(run["finished_at"])),
        ("Purpose", text(run.get("purpose") or "")),
        ("Account", text(run["account"])),
    )


def _list(*facts: tuple[str, str]) -> str:
    shown = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts if value)
    return f"<dl>{shown}</dl>"


def _tree(timeline: Timeline, first: int) -> str:
    if not timeline.rows:
        return ""
    times = ["0", *(duration(timeline.seconds * tick / _TICKS) for tick in range(1, _TICKS))]
    ticks = "".join(f"<span>{time}</span>" for time in times)
    axis = (
        f"<div class='axis' aria-hidden='true'><div></div><div class='ticks'>{ticks}</div><div></div></div>"
    )
    rows = "".join(map(_row, timeline.rows[first : first + PAGE_SIZE]))
    return f"{axis}<div id='spans' role='tree'>{rows}</div>"


def _row(row: Row) -> str:
    span = row.span
    identifier, status = text(span.id), text(span.status)
    took = status if row.seconds is None else duration(row.seconds)
    deep = f"<small>{row.depth}</small> " if row.depth > _DEEPEST else ""
    return (
        f"<details id='s-{identifier}' class='{status}' role='treeitem' aria-level='{row.depth + 1}'>"
        f"<summary><span class='name d{min(row.depth, _DEEPEST)}'>{deep}{text(span.schema_name)}</span>"
        f"{_bar(row)}<span class='took' title='{status}'>{took}</span></summary>"
        f"<div class='body' data-from='/spans/{identifier}'><a href='/spans/{identifier}'>Payloads</a></div>"
        "</details>"
    )


def _bar(row: Row) -> str:
    """Draw where on the axis a span lies, as a picture: the policy of the page allows no styles in it."""
    bar = ""
    if row.start is not None:
        left = round(row.start * _WIDTH, 1)
        width = max(3.0, round((row.end - row.start) * _WIDTH, 1))
        bar = f"<rect x='{min(left, _WIDTH - 3.0)}' width='{width}' y='10' height='10'/>"
    return f"<svg viewBox='0 0 {_WIDTH} 30' preserveAspectRatio='none' aria-hidden='true'>{bar}</svg>"


def _ways(instance_id: str, rows: int, first: int) -> str:
    address = f"/instances/{text(instance_id)}?from="
    before = f"<a href='{address}{max(0, first - PAGE_SIZE)}'>Earlier</a>" if first else ""
    after = f"<a href='{address}{first + PAGE_SIZE}'>Further</a>" if first + PAGE_SIZE < rows else ""
    last = min(rows, first + PAGE_SIZE)
    here = f"<span>{first + 1:,} to {last:,} of {rows:,}</span>" if before or after else ""
    return f"<nav id='ways'>{before}{here}{after}</nav>"
