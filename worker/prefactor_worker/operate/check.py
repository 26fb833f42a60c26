"""`prefactor-worker check`."""

import asyncio
from typing import Annotated, Final

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from prefactor_core.broker.options import asked_partitions
from prefactor_core.config import DEFAULT_API_URL
from prefactor_core.texts import one_line, plain_url
from prefactor_worker.broker import broker_queue
from prefactor_worker.operate.check_api import check_api
from prefactor_worker.operate.check_broker import (
    DEFAULT_MAX_AGE,
    DEFAULT_MAX_BACKLOG,
    Limits,
    check_broker,
)
from prefactor_worker.operate.common import command, write_json
from prefactor_worker.operate.findings import Level, is_well
from prefactor_worker.options import ApiTokenFile, ApiUrlIfAny, AsJson, TransportIfAny
from prefactor_worker.token import TokenError, find_token

_STYLES: Final = {
    Level.OK: "green",
    Level.WARNING: "yellow",
    Level.PROBLEM: "bold red",
    Level.NOT_GIVEN: "dim",
}
_WIDTH: Final = max(map(len, Level))


@command
async def check(
    *,
    transport: TransportIfAny = None,
    api_url: ApiUrlIfAny = None,
    api_token_file: ApiTokenFile = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="For monitors: no worker, or a backlog too old or long, is a problem."),
    ] = False,
    max_age: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help=f"With --strict: how old the backlog may be. Default: {DEFAULT_MAX_AGE:.0f}.",
        ),
    ] = None,
    max_backlog: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="With --strict: how many operations may wait. Default: any number, or "
            f"{DEFAULT_MAX_BACKLOG} where the broker does not tell their age (RabbitMQ).",
        ),
    ] = None,
    json_document: AsJson = False,
) -> int:
    """Connect to the broker and to the API, and say in plain words what is wrong with either.

    It only looks: it makes nothing at the broker, and changes nothing. What is not given is not checked.

    Exit status: 0 with nothing worse than warnings, 1 with a problem, 2 for a mistake on the command line.
    """
    token = token_problem = None
    try:
        source = find_token(api_token_file)
        token = source.current() if source is not None else None
    except TokenError as error:
        token_problem = str(error)
    if api_url is None and (token is not None or token_problem is not None):
        api_url = DEFAULT_API_URL  # where `run` would send it
    if transport is None and api_url is None:
        raise typer.BadParameter("nothing to check: give --transport, or --api-url, or both")
    limits = Limits(DEFAULT_MAX_AGE if max_age is None else max_age, max_backlog) if strict else None
    if not strict and (max_age is not None or max_backlog is not None):
        raise typer.BadParameter("--max-age and --max-backlog are for --strict")
    if limits is not None and transport is None:
        raise typer.BadParameter("--strict is about a broker: give --transport")
    broker = asked = None
    if transport is not None:
        broker, asked = broker_queue(transport).broker, asked_partitions(transport)
    try:
        of_broker, of_api = await asyncio.gather(
            check_broker(broker, asked, limits), check_api(api_url, token, token_problem)
        )
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise typer.BadParameter(first["msg"], param_hint="--api-url") from None
    findings = [*of_broker, *of_api]
    if json_document:
        write_json(
            {
                "ok": is_well(findings),
                "strict": strict,
                "broker": None if broker is None else broker.name,
                "api": None if api_url is None else plain_url(api_url),
                "findings": [
                    {"about": one.about.lower(), "level": one.level.value, "text": one.text}
                    for one in findings
                ],
            }
        )
    else:
        console = Console(soft_wrap=True)
        for finding in findings:
            line = Text(f"{finding.about:<7}")
            line.append(f"{finding.level.value:<{_WIDTH}}", style=_STYLES[finding.level])
            line.append(f"  {one_line(finding.text)}")
            console.print(line)
    return 0 if is_well(findings) else 1
