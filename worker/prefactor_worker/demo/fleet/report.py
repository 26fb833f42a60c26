"""The report on a fleet: for people, with the count as its last line, or as one JSON document."""

import json
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prefactor_worker.demo.fleet.outcome import FleetOutcome
from prefactor_worker.demo.report import announce_beside, announce_on, print_answer, print_skipped
from prefactor_worker.demo.report_json import answers_json, documents_json, traces_json
from prefactor_worker.demo.trees import duration, trace_tree


class FleetReporter(Protocol):
    """Tells whoever runs the demo what came of it."""

    def report(self, outcome: FleetOutcome) -> None:
        """Tell all of it."""

    def announce(self, url: str) -> None:
        """Say where the emulator's page is while it is kept."""


class FleetJsonReporter:
    """Writes one JSON document.

    Args:
        output: Takes the document.
        messages: Takes what else there is to say.
    """

    def __init__(self, output: TextIO, messages: TextIO) -> None:
        self._output = output
        self._messages = messages

    def report(self, outcome: FleetOutcome) -> None:
        """Write the document."""
        self._output.write(json.dumps(as_json(outcome), indent=2) + "\n")
        self._output.flush()

    def announce(self, url: str) -> None:
        """Say where the emulator's page is, beside the document."""
        announce_beside(self._messages, url)


class FleetConsoleReporter:
    """Prints trees, answers and figures.

    Args:
        console: Where to.
        full: Whether to show all of many spans that are alike.
    """

    def __init__(self, console: Console, *, full: bool) -> None:
        self._console = console
        self._full = full

    def report(self, outcome: FleetOutcome) -> None:
        """Print all of it, the count last."""
        self._console.print()
        print_skipped(self._console, outcome.documents)
        for trace in outcome.traces:
            self._console.print(trace_tree(trace, full=self._full))
            self._console.print()
        for run in outcome.result.runs:
            print_answer(self._console, run)
        if outcome.result.rounds > 1:
            self._console.print(
                f"Each question was asked {outcome.result.rounds} times; shown is the first time of each.\n"
            )
        self._console.print(_delivery_table(outcome))
        self._console.print(_cost_table(outcome))
        style = "bold red" if outcome.problems else "bold green"
        self._console.print(Text(count_line(outcome), style=style), soft_wrap=True)

    def announce(self, url: str) -> None:
        """Say where the emulator's page is."""
        announce_on(self._console, url)


def count_line(outcome: FleetOutcome) -> str:
    """Return the figures that it is all about."""
    count = outcome.result.count
    return (
        f"put {count.puts}, settled {outcome.result.settled}, lost {count.lost}, doubled {count.doubled}, "
        f"out of order {count.out_of_order}"
    )


def as_json(outcome: FleetOutcome) -> dict[str, Any]:
    """Return everything as plain JSON; times are in seconds."""
    result = outcome.result
    kill, cost, count = result.kill, result.cost, result.count
    return {
        "transport": outcome.transport,
        "warnings": list(outcome.warnings),
        "api_url": outcome.api_url,
        "ok": not outcome.problems,
        "problems": outcome.problems,
        **documents_json(outcome.documents),
        "rounds": result.rounds,
        "answers": answers_json(result.runs),
        "traces": traces_json(outcome.traces),
        "agents": [
            {"name": agent.name, "questions": agent.questions, "put": agent.progress.put}
            for agent in result.last.agents
        ],
        "workers": [
            {
                "name": worker.name,
                "pid": worker.pid,
                "settled": worker.figures.settled,
                "killed": worker.killed,
            }
            for worker in result.last.workers
        ],
        "kill": {
            "worker": kill.worker,
            "settled": kill.settled,
            "held": kill.held,
            "effects": kill.effects,
            "put": kill.put,
        },
        "count": {
            "put": count.puts,
            "settled": result.settled,
            "dead_lettered": result.dead_letters,
            "lost": count.lost,
            "doubled": count.doubled,
            "out_of_order": count.out_of_order,
            "unexpected": count.unexpected,
            "requests": outcome.requests,
        },
        "timing": {
            "working": result.working,
            "telemetry": cost.total,
            "telemetry_share": cost.total / result.working,
            "spans": cost.spans,
            "span_median": cost.span_median,
            "span_p99": cost.span_p99,
        },
    }


def _delivery_table(outcome: FleetOutcome) -> Table:
    result = outcome.result
    table = _figures("Delivery")
    for agent in result.last.agents:
        table.add_row(f"{agent.name} put", str(agent.progress.put))
    table.add_section()
    for worker in result.last.workers:
        words = ", as far as it said before it was killed" if worker.killed else ""
        table.add_row(f"{worker.name} settled{words}", str(worker.figures.settled))
    table.add_section()
    table.add_row(f"had taken effect when {result.kill.worker} was killed", str(result.kill.effects))
    table.add_row(f"{result.kill.worker} held then", str(result.kill.held))
    table.add_row("effects in the end", str(result.last.effects))
    table.add_row("API requests", str(outcome.requests))
    return table


def _cost_table(outcome: FleetOutcome) -> Table:
    cost, working = outcome.result.cost, outcome.result.working
    table = _figures("How long telemetry held the agents up, beside workers and API here")
    table.add_row("the agents' work, added up", duration(working))
    table.add_row("of it inside the SDK's calls", duration(cost.total))
    table.add_row("that is", f"{cost.total / working:.2%}")
    table.add_row(f"for one of {cost.spans} spans, median", duration(cost.span_median))
    table.add_row("for one span, 99th percentile", duration(cost.span_p99))
    return table


def _figures(title: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    return table
