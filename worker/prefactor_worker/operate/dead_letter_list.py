"""`dead-letters list` as it is written, to a terminal or as JSON."""

from typing import Any, Final

import typer
from rich.console import Console

from prefactor_core.broker.dead_letters import StoredDeadLetter
from prefactor_worker.operate.common import write_json
from prefactor_worker.operate.dead_letter_view import DEAD_LETTER, summary, summary_line, summary_lines
from prefactor_worker.operate.words import count

_FEW: Final = 7
"""Dead letters that have several lines each: these fit on a screen."""
_ANY_WIDTH: Final = 1 << 20


class TextList:
    """Writes a few dead letters with several lines each, and many with one."""

    usual: Final = 20
    """How many are listed if nobody says: a screen."""

    def __init__(self) -> None:
        self._console = Console(soft_wrap=True)
        self._width = self._console.width if self._console.is_terminal else _ANY_WIDTH
        self._few: list[StoredDeadLetter] = []  # written in the end, if they stay few
        self._number = 0

    def add(self, dead_letter: StoredDeadLetter) -> None:
        """List one more."""
        self._number += 1
        self._few.append(dead_letter)
        if self._number > _FEW:
            for one in self._few:
                self._console.print(summary_line(one, self._width))
            self._few.clear()

    def end(self, *, more: bool) -> None:
        """Say how many were listed, and if so, that there are more."""
        for one in self._few:
            for line in summary_lines(one):
                self._console.print(line)
        found = count(self._number, DEAD_LETTER)
        if more:
            typer.echo(f"\nThe first {found} of more; --by reason counts them, --limit 0 lists all.")
        else:
            typer.echo(f"\n{found}." if self._number else "No dead letters.")


class JsonList:
    """Writes dead letters as one JSON document."""

    usual: Final = 100
    """How many are listed if nobody says."""

    def __init__(self) -> None:
        self._listed: list[dict[str, Any]] = []

    def add(self, dead_letter: StoredDeadLetter) -> None:
        """List one more."""
        self._listed.append(summary(dead_letter))

    def end(self, *, more: bool) -> None:
        """Write the document."""
        write_json({"dead_letters": self._listed, "more": more})
