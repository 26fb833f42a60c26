"""The command line: `prefactor-worker`."""

import sys
from typing import Annotated

import typer

import prefactor_core
from prefactor_worker.operate.check import check
from prefactor_worker.operate.dead_letters import dead_letters
from prefactor_worker.operate.status import status
from prefactor_worker.run.command import run


def main() -> None:
    """Run `prefactor-worker`."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.callback()(_introduce)
    app.command()(run)
    app.command()(status)
    app.add_typer(dead_letters, name="dead-letters")
    app.command()(check)
    try:
        exit_status = app(prog_name="prefactor-worker", standalone_mode=False)
    except typer.TyperException as mistake:
        sys.stderr.write(f"prefactor-worker: {' '.join(mistake.format_message().split())}\n")
        exit_status = mistake.exit_code
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
