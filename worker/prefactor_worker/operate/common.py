"""What the operators' commands share: options, the broker that is meant, and how failures are told."""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Coroutine
from typing import Annotated, Any, Final, TypeAlias

import typer

from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.exceptions import BrokerError, PrefactorCoreError
from prefactor_worker.run.command import TRANSPORT_VARIABLE
from prefactor_worker.run.worker import broker_queue

INTERRUPTED: Final = 130
_NOBODY_READS: Final = 141
"""What a shell makes of a command that wrote to a pipe which nobody reads any more."""

_TRANSPORT_HELP: Final = "The broker: redis://... or amqp://..."

Transport: TypeAlias = Annotated[
    str, typer.Option("--transport", envvar=TRANSPORT_VARIABLE, metavar="URL", help=_TRANSPORT_HELP)
]
TransportIfAny: TypeAlias = Annotated[
    str | None, typer.Option("--transport", envvar=TRANSPORT_VARIABLE, metavar="URL", help=_TRANSPORT_HELP)
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]


def open_broker(url: str) -> BrokerQueue:
    """Return the queue at a transport URL; nothing is connected.

    Raises:
        BadParameter: The URL cannot be served.
    """
    try:
        return broker_queue(url)
    except PrefactorCoreError as error:
        raise typer.BadParameter(str(error), param_hint="--transport") from None


def carry_out(work: Coroutine[Any, Any, int]) -> int:
    """Run what a command does, and return its exit status.

    Raises:
        TyperException: The broker is unavailable or refuses; told in one line.
    """
    # What a command has to say it says itself; the libraries' log lines would stand in between.
    logging.basicConfig(handlers=[logging.NullHandler()], force=True)
    try:
        status = asyncio.run(work)
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
        sys.stderr.write("prefactor-worker: interrupted\n")
        return INTERRUPTED
    return status


def write_json(document: object, *, one_line: bool = False) -> None:
    """Write one JSON document to stdout."""
    sys.stdout.write(json.dumps(document, indent=None if one_line else 2) + "\n")
    sys.stdout.flush()


def write_line(text: str = "") -> None:
    """Write one line to stdout."""
    sys.stdout.write(f"{text}\n")
