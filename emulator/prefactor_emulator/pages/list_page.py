"""The page that lists runs."""

from collections.abc import Mapping, Sequence
from typing import cast

from prefactor_emulator.model import JsonObject, Status
from prefactor_emulator.pages.markup import badge, duration, moment, page, text
from prefactor_emulator.pages.timeline import seconds_of

PAGE_SIZE = 100


def instances_page(
    instances: Sequence[JsonObject], counts: Mapping[str, int], status: str | None, *, first: bool
) -> str:
    """Lay out the list.

    Args:
        instances: The newest ones, one more than are shown if there are older ones.
        counts: How many there are in each state.
        status: The state by which they were chosen, if any.
        first: Whether these are the newest of all.
    """
    shown = instances[:PAGE_SIZE]
    rows = "".join(map(_row, shown))
    table = (
        "<table><thead><tr><th>State</th><th>Agent</th><th>Instance</th><th>Spans</th>"
        f"<th>Started</th><th>Took</th></tr></thead><tbody>{rows}</tbody></table>"
    )
    nothing = "No agent has registered here yet." if not counts else "There are none in this state."
    content = table if rows else f"<p class='empty'>{nothing}</p>"
    older = shown[-1]["seq"] if len(instances) > PAGE_SIZE else None
    ways = _ways(status, older, first=first)
    return page("Agent instances", f"<h1>Agent instances</h1>{_filters(counts, status)}{content}{ways}")


def _filters(counts: Mapping[str, int], chosen: str | None) -> str:
    links = [_filter("/", "all", sum(counts.values()), current=chosen is None)]
    links += [
        _filter(f"/?status={status}", status, counts.get(status, 0), current=chosen == status)
        for status in Status
    ]
    return f"<nav id='filters'>{''.join(links)}</nav>"


def _filter(address: str, name: str, count: int, *, current: bool) -> str:
    mark = " aria-current='page'" if current else ""
    return f"<a class='{name}' href='{address}'{mark}>{name} <b>{count:,}</b></a>"


def _ways(status: str | None, older: object, *, first: bool) -> str:
    chosen = f"status={status}&amp;" if status else ""
    newest = "" if first else f"<a href='/?{chosen}'>Newest</a>"
    further = "" if older is None else f"<a href='/?{chosen}before={older}'>Older</a>"
    return f"<nav id='ways'>{newest}{further}</nav>"


def _row(instance: JsonObject) -> str:
    identifier, status = text(instance["id"]), str(instance["status"])
    started, finished = (
        seconds_of(cast("str | None", instance[name])) for name in ("started_at", "finished_at")
    )
    took = "" if started is None or finished is None else duration(max(0.0, finished - started))
    return (
        f"<tr id='i-{identifier}'><td>{badge(status)}</td>"
        f"<td class='name'>{text(instance['agent_version'])}</td>"
        f"<td><a href='/instances/{identifier}'><code>{identifier}</code></a></td>"
        f"<td class='spans'>{_spans(cast('dict[str, int]', instance['spans']))}</td>"
        f"<td class='when'>{moment(instance['started_at'] or instance['registered_at'])}</td>"
        f"<td class='took'>{took}</td></tr>"
    )


def _spans(counts: Mapping[str, int]) -> str:
    """Show how many there are, and of those that want looking at, how many of each."""
    notable = (Status.ACTIVE, Status.FAILED, Status.CANCELLED, Status.PENDING)
    marks = [badge(status, f"{counts[status]:,} {status}") for status in notable if counts.get(status)]
    return " ".join([f"<b>{sum(counts.values()):,}</b>", *marks])
