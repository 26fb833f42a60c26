"""A look at a fleet as a table, and as JSON."""

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from prefactor_core.texts import one_line
from prefactor_worker.operate.look import Look, Row
from prefactor_worker.operate.words import count, duration

_UNKNOWN = "?"


def as_json(broker: str, look: Look) -> dict[str, Any]:
    """Return everything as plain JSON; times are in seconds, what is not known is null."""
    return {
        "broker": broker,
        "at": look.at.isoformat(timespec="milliseconds"),
        "partitions": [
            {
                "partition": row.state.number,
                "owned": row.owned,
                "owner": row.state.owner or None,
                "backlog": row.state.backlog,
                "backlog_change_per_second": _rounded(row.change),
                "oldest_seconds": _rounded(row.age),
                "dead_letters": row.state.dead,
            }
            for row in look.rows
        ],
        "total": {
            "partitions": len(look.rows),
            "owned": look.owned,
            "workers": look.workers,
            "standing_aside": look.aside,
            "backlog": look.backlog,
            "backlog_change_per_second": _rounded(look.change),
            "oldest_seconds": _rounded(look.oldest),
            "dead_letters": look.dead,
        },
    }


def as_table(broker: str, look: Look, *, watched: bool, rows: int | None = None) -> RenderableType:
    """Return everything for a terminal.

    Args:
        broker: What to call the broker.
        look: What was seen.
        watched: Whether to show how much has changed since the look before.
        rows: Partitions shown at most: those in which most waits.
    """
    if not look.rows:
        nothing = Text("No partitions yet: no agent and no worker has used this broker.")
        return Group(_title(broker), nothing, *_refused(look))
    shown = look.rows
    if rows is not None and len(shown) > rows:
        busiest = sorted(shown, key=lambda row: (row.state.backlog, row.state.dead or 0), reverse=True)
        shown = sorted(busiest[:rows], key=lambda row: row.state.number)
    table = Table()
    table.add_column("partition", justify="right")
    table.add_column("owner", overflow="fold")
    table.add_column("backlog", justify="right")
    if watched:
        table.add_column("backlog, change/s", justify="right")
    table.add_column("oldest", justify="right")
    table.add_column("dead letters", justify="right")
    for row in shown:
        table.add_row(*_cells(row, watched=watched), style="" if row.owned else "yellow")
    table.add_section()
    change = [_signed(look.change)] if watched else []
    oldest = "" if look.backlog == 0 else _UNKNOWN if look.oldest is None else duration(look.oldest)
    table.add_row("all", _owners(look), f"{look.backlog:,}", *change, oldest, f"{look.dead:,}", style="bold")
    return Group(_title(broker), table, *_notes(look, shown))


def _title(broker: str) -> Text:
    return Text(one_line(broker), style="bold", overflow="fold")


def _cells(row: Row, *, watched: bool) -> list[str]:
    state = row.state
    owner = "none" if state.owner is None else one_line(state.owner) or "a worker"
    oldest = "" if state.backlog == 0 else _UNKNOWN if row.age is None else duration(row.age)
    dead = _UNKNOWN if state.dead is None else f"{state.dead:,}"
    change = [_signed(row.change)] if watched else []
    return [str(state.number), owner, f"{state.backlog:,}", *change, oldest, dead]


def _owners(look: Look) -> str:
    if look.workers is None:
        return f"{look.owned} of {len(look.rows)} owned"
    return count(look.workers, "worker")


def _refused(look: Look) -> list[Text]:
    if not look.aside:
        return []
    one = look.aside == 1
    who = "1 worker stands" if one else f"{look.aside:,} workers stand"
    return [Text(f"{who} aside: the API refuses {'its' if one else 'their'} token.", style="red")]


def _notes(look: Look, shown: Sequence[Row]) -> list[Text]:
    notes = _refused(look)
    if len(shown) < len(look.rows):
        notes.append(Text(f"{len(look.rows) - len(shown)} quieter partitions are not shown.", style="dim"))
    if look.partly_known:
        notes.append(
            Text(
                "This broker tells neither which worker owns a partition, nor how old what waits is, nor "
                "from which partition dead letters come. What workers have prefetched does not count "
                "here.",
                style="dim",
            )
        )
    free = len(look.rows) - look.owned
    if free == len(look.rows):
        notes.append(Text("No worker is there: operations wait until one is.", style="yellow"))
    elif free:
        notes.append(
            Text(f"{count(free, 'partition')} without an owner: what is in there waits.", style="yellow")
        )
    return notes


def _signed(change: float | None) -> str:
    return "" if change is None else f"{change:+,.1f}" if round(change, 1) else "0"


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 3)
