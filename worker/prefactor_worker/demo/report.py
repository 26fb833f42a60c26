"""The report: for people, with the traces as trees, or as one JSON document."""

import json
from typing import Final, Protocol, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prefactor_worker.demo.documents import Documents
from prefactor_worker.demo.outcome import AgentRun, Outcome, Timing
from prefactor_worker.demo.report_json import as_json
from prefactor_worker.demo.trees import clean, duration, trace_tree

_SKIPPED_SHOWN: Final = 5


class Reporter(Protocol):
    """Tells whoever runs the demo what came of it."""

    def report(self, outcome: Outcome) -> None:
        """Tell all of it."""

    def announce(self, url: str) -> None:
        """Say where the emulator's page is while it is kept."""


class JsonReporter:
    """Writes one JSON document.

    Args:
        output: Takes the document.
        messages: Takes what else there is to say.
    """

    def __init__(self, output: TextIO, messages: TextIO) -> None:
        self._output = output
        self._messages = messages

    def report(self, outcome: Outcome) -> None:
        """Write the document."""
        self._output.write(json.dumps(as_json(outcome), indent=2) + "\n")
        self._output.flush()

    def announce(self, url: str) -> None:
        """Say where the emulator's page is, beside the document."""
        announce_beside(self._messages, url)


class ConsoleReporter:
    """Prints trees and tables.

    Args:
        console: Where to.
        full: Whether to show all of many spans that are alike.
    """

    def __init__(self, console: Console, *, full: bool) -> None:
        self._console = console
        self._full = full

    def report(self, outcome: Outcome) -> None:
        """Print traces, answers and summary."""
        self._console.print(
            f"{len(outcome.runs)} agents, {len(outcome.documents.files)} files; "
            f"telemetry to {outcome.api_url}"
        )
        print_skipped(self._console, outcome.documents)
        if outcome.readback is None:
            self._console.print(
                f"{outcome.api_url} is no emulator: its traces cannot be read back here, so none are shown.\n"
            )
        else:
            for trace in outcome.readback.traces:
                self._console.print(trace_tree(trace, full=self._full))
                self._console.print()
        for run in outcome.runs:
            print_answer(self._console, run)
        self._console.print(_delivery_table(outcome))
        self._console.print(_timing_table(outcome.timing))
        if not outcome.problems:
            words = "and took effect exactly once" if outcome.readback else "but was not read back"
            self._console.print(f"Everything that was put was delivered, {words}.", style="green")

    def announce(self, url: str) -> None:
        """Say where the emulator's page is."""
        announce_on(self._console, url)


def announce_beside(messages: TextIO, url: str) -> None:
    """Say where the emulator's page is, where the output is a document."""
    messages.write(f"prefactor-worker: the runs are at {url} until Ctrl-C\n")
    messages.flush()


def announce_on(console: Console, url: str) -> None:
    """Say where the emulator's page is."""
    console.print(f"The runs are at {url} until Ctrl-C.")


def print_skipped(console: Console, documents: Documents) -> None:
    """Print which files are not read."""
    for skipped in documents.skipped[:_SKIPPED_SHOWN]:
        console.print(Text(f"skipped {clean(skipped.name)}: {skipped.reason}", style="dim"))
    more = len(documents.skipped) - _SKIPPED_SHOWN
    if more > 0:
        console.print(Text(f"skipped {more} more files", style="dim"))
    console.print()


def print_answer(console: Console, run: AgentRun) -> None:
    """Print a question and what its agent found."""
    console.print(Text(clean(run.question), style="bold"))
    if run.failure is not None:
        console.print(Text(f"  failed: {clean(run.failure)}", style="red"))
    elif not run.sentences:
        console.print("  Nothing in these files answers that.")
    for sentence in run.sentences:
        line = Text(f"  {clean(sentence.text)} ")
        line.append(f"[{clean(sentence.source)}]", style="cyan")
        console.print(line)
    console.print()


def _delivery_table(outcome: Outcome) -> Table:
    summary, readback = outcome.summary, outcome.readback
    table = Table(title="Delivery", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("operations put", str(summary.put))
    table.add_row("delivered", str(summary.delivered))
    table.add_row("dead-lettered", str(summary.dead_lettered))
    table.add_row("dropped", str(sum(summary.dropped.values())))
    table.add_row("left", str(summary.left))
    if readback is not None:
        table.add_section()
        for name, count in readback.effects.items():
            table.add_row(f"effects: {name}", str(count))
        table.add_row("API requests", str(readback.requests))
    return table


def _timing_table(timing: Timing) -> Table:
    cost = timing.telemetry
    table = Table(title="What telemetry cost the agents", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("the agents' work, from beginning to end", duration(timing.running))
    table.add_row("of it inside the SDK's calls", duration(cost.total))
    table.add_row("that is", f"{cost.total / timing.running:.2%}")
    table.add_row(f"for one of {cost.spans} spans, median", duration(cost.span_median))
    table.add_row("for one span, 99th percentile", duration(cost.span_p99))
    table.add_section()
    table.add_row("starting the client, once", duration(timing.starting))
    table.add_row("closing it: delivering what was left", duration(timing.closing))
    return table
