"""What is shown: while it happens, and what came of it."""

import json
import time
from collections import Counter
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from agents import Answer

_STYLES: Final = {"complete": "green", "failed": "bold red", "cancelled": "yellow"}
_ALIKE_SHOWN: Final = 3


class Report(BaseModel):
    """What came of it: the answers, the runs as the emulator has them, figures, and what is wrong."""

    answers: list[Answer]
    runs: list[dict[str, Any]]
    delivery: dict[str, int]
    cost: dict[str, str]
    problems: list[str]
    proof: str


class Progress:
    """Shows how far it is: below ``status`` in a terminal, elsewhere as a line each second."""

    def __init__(self, console: Console) -> None:
        self.status = console.status("starting")
        self._console = console
        self._began = self._shown = time.monotonic()

    def say(self, words: str) -> None:
        """Say what has just happened."""
        self._console.print(Text(words, style="bold"), soft_wrap=True)

    def show(self, figures: dict[str, str]) -> None:
        """Show how far it is."""
        now = time.monotonic()
        if self._console.is_terminal:
            self.status.update("\n  ".join(f"{name}: {words}" for name, words in figures.items()))
        elif now >= self._shown + 1:
            self._shown = now
            self.say(f"{now - self._began:5.1f} s  {'; '.join(' '.join(row) for row in figures.items())}")


def print_report(console: Console, report: Report, *, full: bool) -> None:
    """Print everything, the proof last. Without ``full``, many spans alike take one line."""
    for run in report.runs:
        tree = Tree(_line(f"agent instance {run['id']}", run))
        _grow(tree, run["spans"], full=full)
        console.print(tree, "")
    for answer in report.answers:
        console.print(Text(_clean(answer.question), style="bold"))
        if not answer.sentences:
            console.print("  Nothing in these files answers that.")
        for sentence in answer.sentences:
            source = (f"[{_clean(sentence.source)}]", "cyan")
            console.print(Text.assemble(f"  {_clean(sentence.text)} ", source))
        console.print()
    console.print(_table("Delivery", report.delivery))
    console.print(_table("What telemetry cost the agents", report.cost))
    proof = "; ".join([*report.problems, report.proof])
    console.print(Text(proof, style="bold red" if report.problems else "bold green"), soft_wrap=True)


def duration(seconds: float) -> str:
    """Return seconds in the unit that fits."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.2f} ms"


def _table(title: str, figures: dict[str, Any]) -> Table:
    table = Table("", "", title=title, title_justify="left", show_header=False)
    for name, figure in figures.items():
        table.add_row(name, str(figure))
    return table


def _grow(tree: Tree, spans: list[dict[str, Any]], *, full: bool) -> None:
    ordinary = [span for span in spans if span["status"] == "complete" and not span["children"]]
    total, shown = Counter(span["schema_name"] for span in ordinary), Counter[str]()
    for span in spans:
        name = _clean(span["schema_name"])
        if span in ordinary and not full:
            shown[name] += 1
            if shown[name] == _ALIKE_SHOWN + 1:
                tree.add(Text(f"{total[name] - _ALIKE_SHOWN} more {name}, complete", style="dim"))
            if shown[name] > _ALIKE_SHOWN:
                continue
        line = _line(name, span)
        for value, arrow in ((span["payload"], "  "), (span["result_payload"], "\n→ ")):
            if value:
                line.append(arrow + _clean(json.dumps(value, ensure_ascii=False)), style="dim")
        _grow(tree.add(line), span["children"], full=full)


def _line(name: str, of: dict[str, Any]) -> Text:
    line = Text.assemble((name, "cyan"), "  ", (of["status"], _STYLES.get(of["status"], "magenta")))
    line.no_wrap, line.overflow = True, "ellipsis"
    if of["started_at"] and of["finished_at"]:
        started, finished = map(datetime.fromisoformat, (of["started_at"], of["finished_at"]))
        line.append(f"  {duration((finished - started).total_seconds())}", style="blue")
    return line


def _clean(text: str) -> str:
    """Replace what a terminal would obey: the words come from files."""
    return "".join(character if character.isprintable() else " " for character in text)
