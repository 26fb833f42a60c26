"""The command ``prefactor-emulator``, even where its libraries are missing."""

from prefactor_core.utils import run_command


def main() -> None:
    """Run the command, or say which extra to install."""
    run_command("prefactor_emulator.cli", "prefactor-emulator", "emulator")
