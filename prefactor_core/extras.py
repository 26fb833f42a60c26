"""Commands whose libraries come with an extra: what to say when it was not installed."""

import importlib
import sys
from typing import Final

_OURS: Final = "prefactor_"


def run_command(module: str, command: str, extra: str) -> None:
    """Import a command's module and run its ``main``.

    Args:
        module: The module.
        command: The command's name, for the message.
        extra: The extra that brings what the module imports.

    Raises:
        SystemExit: With status 2 and one line, if a library that the extra brings is missing.
    """
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith(_OURS):
            raise  # a mistake of ours, not a missing library
        print(  # noqa: T201 -- a command speaks to its user
            f"{command} needs {error.name}: pip install 'prefactor-core[{extra}]'", file=sys.stderr
        )
        raise SystemExit(2) from None
    loaded.main()
