"""`prefactor-emulator`: serving."""

import contextlib
import inspect
import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from prefactor_emulator.app import Emulator
from prefactor_emulator.faults.fault import AIM_HELP
from prefactor_emulator.faults.kinds import FAULT_KINDS, FaultSpecError
from prefactor_emulator.http.accounts import AccountError, Accounts
from prefactor_emulator.server import bind, serve
from prefactor_emulator.storage.database import Database, DatabaseError


def faults_help() -> str:
    """Describe every fault by an example and its meaning."""
    shown = [(inspect.getdoc(kind) or "").partition("\n")[0] for kind in FAULT_KINDS.values()]
    return "\n\n".join([f"Faults, by examples. {AIM_HELP}", *(text.replace("`", "") for text in shown)])


def serve_command(
    context: typer.Context,
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = 8700,
    db: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="SQLite file to keep. Default: a temporary one."),
    ] = None,
    token: Annotated[
        list[str] | None,
        typer.Option(metavar="TOKEN", help="Accept this token. Default: accept any. Repeatable."),
    ] = None,
    account: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=TOKEN",
            help="Accept this token, for the account of that name. Several tokens may name one account."
            " Repeatable.",
        ),
    ] = None,
    deployment: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=TOKEN",
            help="Accept this token, as that of a deployment of the agent NAME in the first --account: it"
            " writes, but reads nothing and records no qualities. Repeatable.",
        ),
    ] = None,
    strict_schemas: Annotated[
        bool,
        typer.Option(
            "--strict-schemas", help="Refuse what does not fit the registered schemas. Default: flag it."
        ),
    ] = False,
    strict_termination: Annotated[
        bool,
        typer.Option(
            "--strict-termination",
            help="Refuse the spans that are created in a terminated instance. Default: take them, and ask"
            " again for its end.",
        ),
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Answer under this host name too. Addresses and names without a dot need no naming."
            " Repeatable.",
        ),
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:KEY=VALUE,...", help="Misbehave like this; see below for how. Repeatable."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the faults' randomness.")] = 0,
    dedup: Annotated[
        bool,
        typer.Option(help="Without it, a repeat under a known key is one more effect in the log."),
    ] = True,
) -> None:
    """Serve the Prefactor HTTP API locally, for development and tests.

    Agents use it with api_url=http://HOST:PORT. A browser finds their runs at the same address, and a
    description of the API at /openapi.json.
    """
    if context.invoked_subcommand is not None:
        return
    with contextlib.ExitStack() as stack:
        try:
            accounts = Accounts(token or (), account or (), deployment or ())
        except AccountError as error:
            _give_up(f"--account, --deployment: {error}", 2)
        if db == "":
            _give_up("--db: name a file", 2)
        if db is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="prefactor-emulator-"))
            db = str(Path(folder) / "emulator.db")
        try:
            database = Database(db)
        except DatabaseError as error:
            _give_up(f"--db: {error}", 1)
        stack.callback(database.close)
        emulator = Emulator(
            database,
            accounts,
            dedup=dedup,
            strict_schemas=strict_schemas,
            strict_termination=strict_termination,
            hosts=[host, *(allow_host or ())],
        )
        try:
            emulator.faults.activate(fault or (), seed)
        except FaultSpecError as error:
            _give_up(f"--fault {error}", 2)
        try:
            listener = stack.enter_context(bind(host, port))
        except (OSError, UnicodeError) as error:
            number = getattr(error, "errno", None) or 0
            reason = os.strerror(number) if number > 0 else str(error)
            _give_up(f"cannot listen on {host}:{port}: {reason}; choose another --port", 1)
        serve(emulator, listener)


def _give_up(problem: str, status: int) -> NoReturn:
    sys.stderr.write(f"prefactor-emulator: {problem}\n")
    raise typer.Exit(status)
