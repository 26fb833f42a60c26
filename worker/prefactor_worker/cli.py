"""The command line: `prefactor-worker`."""

import asyncio
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic import ValidationError
from rich.console import Console

import prefactor_core
from prefactor_core import HttpClientConfig
from prefactor_core.exceptions import PrefactorCoreError
from prefactor_worker.demo.documents import DocumentError, Documents, default_paths, find_documents
from prefactor_worker.demo.errors import DemoError
from prefactor_worker.demo.fleet.broker import place_at
from prefactor_worker.demo.fleet.report import FleetConsoleReporter, FleetJsonReporter, FleetReporter
from prefactor_worker.demo.fleet.run import FleetSettings, run_fleet_demo
from prefactor_worker.demo.fleet.view import SilentView, View, console_view
from prefactor_worker.demo.report import ConsoleReporter, JsonReporter, Reporter
from prefactor_worker.demo.run import DemoSettings, run_demo
from prefactor_worker.demo.search import search_terms
from prefactor_worker.operate.check import check
from prefactor_worker.operate.dead_letters import dead_letters_commands
from prefactor_worker.operate.status import status
from prefactor_worker.run.command import run

_TOKEN_VARIABLE: Final = "PREFACTOR_API_TOKEN"  # noqa: S105 -- a variable's name
_QUESTIONS: Final = (
    "What happens to operations that do not fit into the buffer?",
    "How does a span take its parent?",
    "What becomes of a result that cannot be serialised?",
    "When is the token refused, and what is lost then?",
)


def main() -> None:
    """Run `prefactor-worker`."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.callback()(_introduce)
    app.command(name="run")(run)
    app.command(name="status")(status)
    app.add_typer(dead_letters_commands(), name="dead-letters")
    app.command(name="check")(check)
    app.command(name="demo")(_demo)
    try:
        exit_status = app(prog_name="prefactor-worker", standalone_mode=False)
    except typer.TyperException as mistake:
        exit_status = _complain(mistake.format_message(), mistake.exit_code)
    sys.exit(exit_status)


def _tell_version(wanted: bool) -> None:  # noqa: FBT001 -- the library calls it so
    if wanted:
        sys.stdout.write(f"prefactor-worker {prefactor_core.__version__}\n")
        raise typer.Exit


def _introduce(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_tell_version, help="Print the version, and end."),
    ] = False,
) -> None:
    """Work with Prefactor telemetry from the command line."""
    del version  # its callback has told it


def _demo(
    *,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PATH]...", help="Files and folders to read. Default: this project's own."),
    ] = None,
    question: Annotated[
        list[str] | None,
        typer.Option("--question", "-q", metavar="TEXT", help="Ask this. Repeatable; an agent each."),
    ] = None,
    transport: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Have agents and two workers as processes round this broker, redis://... or amqp://..., and "
            "kill one worker in the middle. What it makes there is deleted at the end.",
        ),
    ] = None,
    api_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help=f"Send the telemetry there, with the token in {_TOKEN_VARIABLE}. "
            "Default: an emulator of the demo's own.",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Where that emulator listens. Default: a free port."),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep that emulator and its page running until Ctrl-C.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="Show every span, also the many alike.")] = False,
    json_document: Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")] = False,
) -> int:
    """Let agents answer questions from files, and show what the API made of their telemetry.

    Each question is an agent instance. The agents plan, read, search, rank and answer at the same time; every
    step is a span, with what went in and what came out. The traces are read back from the emulator.

    With --transport the questions are asked again and again, the telemetry goes by the broker, and it ends
    with the count: put, settled, lost, doubled, out of order.
    """
    if api_url is not None and (keep or port is not None):
        raise typer.BadParameter("--keep and --port are about an emulator of the demo's own: leave --api-url")
    if transport is not None:
        if api_url is not None:
            raise typer.BadParameter("--transport counts at an emulator of the demo's own: leave --api-url")
        return _demo_with_fleet(
            _fleet_settings(transport, paths, question, port, keep=keep), full=full, json=json_document
        )
    settings = DemoSettings(
        documents=_documents(paths or []),
        questions=_questions(question),
        api=None if api_url is None else _api(api_url),
        port=port or 0,
        keep=keep,
    )
    reporter: Reporter = (
        JsonReporter(sys.stdout, sys.stderr) if json_document else ConsoleReporter(Console(), full=full)
    )
    return _carry_through(run_demo(settings, reporter))


def _fleet_settings(
    transport: str, paths: list[Path] | None, question: list[str] | None, port: int | None, *, keep: bool
) -> FleetSettings:
    try:
        place = place_at(transport)
    except PrefactorCoreError as error:
        raise typer.BadParameter(str(error), param_hint="--transport") from None
    return FleetSettings(
        documents=_documents(paths or []),
        questions=_questions(question),
        place=place,
        port=port or 0,
        keep=keep,
    )


def _demo_with_fleet(settings: FleetSettings, *, full: bool, json: bool) -> int:
    view: View
    reporter: FleetReporter
    if json:
        view, reporter = SilentView(), FleetJsonReporter(sys.stdout, sys.stderr)
    else:
        console = Console()
        view, reporter = console_view(console), FleetConsoleReporter(console, full=full)
    return _carry_through(run_fleet_demo(settings, view, reporter))


def _carry_through(demo: Coroutine[Any, Any, list[str]]) -> int:
    try:
        problems = asyncio.run(demo)
    except DemoError as error:
        return _complain(str(error), 1)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    except asyncio.CancelledError:
        return _complain("ended by a signal", 143)
    return _complain("; ".join(problems), 1) if problems else 0


def _documents(paths: list[Path]) -> Documents:
    here = Path.cwd()
    try:
        return find_documents(paths or default_paths(here, Path(prefactor_core.__file__).parent), here)
    except DocumentError as error:
        raise typer.BadParameter(str(error), param_hint="PATH") from error


def _questions(given: list[str] | None) -> list[str]:
    questions = list(given or _QUESTIONS)
    for question in questions:
        if not search_terms(question):
            raise typer.BadParameter(f"{question!r} has no word to search for", param_hint="--question")
    return questions


def _api(url: str) -> HttpClientConfig:
    token = os.environ.get(_TOKEN_VARIABLE, "")
    if not token:
        raise typer.BadParameter(f"the API's token is to be in {_TOKEN_VARIABLE}", param_hint="--api-url")
    try:
        return HttpClientConfig(api_url=url, api_token=token)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise typer.BadParameter(f"{first['loc'][0]}: {first['msg']}", param_hint="--api-url") from error


def _complain(problem: str, status: int) -> int:
    sys.stderr.write(f"prefactor-worker: {' '.join(problem.split())}\n")
    return status
