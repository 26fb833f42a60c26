"""The command line of the emulator."""

import typer

from prefactor_emulator.serve import faults_help, serve_command
from prefactor_emulator.verify.command import verify_command


def main() -> None:
    """Run `prefactor-emulator`."""
    app = typer.Typer(add_completion=False)
    app.callback(invoke_without_command=True, epilog=faults_help())(serve_command)
    app.command("verify")(verify_command)
    app(prog_name="prefactor-emulator")
