"""What the operators' commands share: how they are carried out, how failures are told, what is written."""

import asyncio
import functools
import json
import logging
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final, ParamSpec

import typer

from prefactor_core.exceptions import BrokerError, PrefactorCoreError

P = ParamSpec("P")

INTERRUPTED: Final = 130
_NOBODY_READS: Final = 141
"""What a shell makes of a command that wrote to a pipe which nobody reads any more."""


def command(work: Callable[P, Coroutine[Any, Any, int]]) -> Callable[P, int]:
    """Make a command of a coroutine function that returns the exit status; failures are told in one line."""

    @functools.wraps(work)
    def carry_out(*args: P.args, **options: P.kwargs) -> int:
        # What a command has to say it says itself; the libraries' log lines would stand in between.
        logging.basicConfig(handlers=[logging.NullHandler()], force=True)
        try:
            status = asyncio.run(work(*args, **options))
            sys.stdout.flush()
        except BrokerError as error:
            raise typer.TyperException(str(error)) from None
        except PrefactorCoreError as error:
            raise typer.BadParameter(str(error), param_hint="--transport") from None
        except BrokenPipeError:
            # Python flushes once more at its end, and would complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return _NOBODY_READS
        except (KeyboardInterrupt, asyncio.CancelledError):
            warn("interrupted")
            return INTERRUPTED
        return status

    return carry_out


def write_json(document: object, *, one_line: bool = False) -> None:
    """Write one JSON document to stdout."""
    typer.echo(json.dumps(document, indent=None if one_line else 2))


def warn(text: str) -> None:
    """Write one line to stderr."""
    typer.echo(f"prefactor-worker: {text}", err=True)
