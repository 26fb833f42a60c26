"""`prefactor-worker check`."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from prefactor_core.broker.driver import Broker
from prefactor_core.config import DEFAULT_API_URL
from prefactor_worker.operate.check_api import check_api, plain_url
from prefactor_worker.operate.check_broker import (
    DEFAULT_MAX_AGE,
    DEFAULT_MAX_BACKLOG,
    Limits,
    check_broker,
)
from prefactor_worker.operate.common import AsJson, TransportIfAny, carry_out, open_broker, write_json
from prefactor_worker.operate.findings import Finding, Findings, Level, is_well
from prefactor_worker.operate.words import safe
from prefactor_worker.run.command import TOKEN_VARIABLE, TRANSPORT_VARIABLE
from prefactor_worker.run.token import FileToken, TokenError, checked

_URL_VARIABLE: Final = "PREFACTOR_API_URL"
_STYLES: Final = {
    Level.OK: "green",
    Level.WARNING: "yellow",
    Level.PROBLEM: "bold red",
    Level.NOT_GIVEN: "dim",
}
_WIDTH: Final = max(map(len, Level))


def check(
    *,
    transport: TransportIfAny = None,
    api_url: Annotated[
        str | None, typer.Option(envvar=_URL_VARIABLE, metavar="URL", help="Where operations are posted.")
    ] = None,
    api_token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="PREFACTOR_API_TOKEN_FILE",
            metavar="FILE",
            help=f"The API's token. Else {TOKEN_VARIABLE} is taken.",
        ),
    ] = None,
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
    token, problem = _token(api_token_file)
    if api_url is None and (token is not None or problem is not None):
        api_url = DEFAULT_API_URL  # where `run` would send it
    if transport is None and api_url is None:
        raise typer.BadParameter("nothing to check: give --transport, or --api-url, or both")
    limits = Limits(DEFAULT_MAX_AGE if max_age is None else max_age, max_backlog) if strict else None
    if not strict and (max_age is not None or max_backlog is not None):
        raise typer.BadParameter("--max-age and --max-backlog are for --strict")
    if limits is not None and transport is None:
        raise typer.BadParameter("--strict is about a broker: give --transport")
    return carry_out(_check(transport, api_url, token, problem, limits, json=json_document))


async def _check(
    transport: str | None,
    api_url: str | None,
    token: str | None,
    token_problem: str | None,
    limits: Limits | None,
    *,
    json: bool,
) -> int:
    broker = None if transport is None else open_broker(transport).broker
    try:
        of_broker, of_api = await asyncio.gather(
            _of_broker(broker, transport, limits), _of_api(api_url, token, token_problem)
        )
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise typer.BadParameter(first["msg"], param_hint="--api-url") from None
    findings = [*of_broker, *of_api]
    if json:
        write_json(
            {
                "ok": is_well(findings),
                "strict": limits is not None,
                "broker": None if broker is None else broker.name,
                "api": None if api_url is None else plain_url(api_url),
                "findings": [
                    {"about": one.about.lower(), "level": one.level.value, "text": one.text}
                    for one in findings
                ],
            }
        )
    else:
        _print(findings)
    return 0 if is_well(findings) else 1


async def _of_broker(broker: Broker | None, url: str | None, limits: Limits | None) -> list[Finding]:
    if broker is not None and url is not None:
        return await check_broker(broker, url, limits)
    findings = Findings("broker")
    findings.add(Level.NOT_GIVEN, f"a broker: name one with --transport, or set {TRANSPORT_VARIABLE}")
    return findings.all


async def _of_api(url: str | None, token: str | None, token_problem: str | None) -> list[Finding]:
    if url is not None:
        return await check_api(url, token, token_problem)
    findings = Findings("API")
    findings.add(Level.NOT_GIVEN, f"an API: name one with --api-url, or set {_URL_VARIABLE}")
    return findings.all


def _print(findings: Sequence[Finding]) -> None:
    console = Console(soft_wrap=True)
    for finding in findings:
        line = Text(f"{finding.about:<7}")
        line.append(f"{finding.level.value:<{_WIDTH}}", style=_STYLES[finding.level])
        line.append(f"  {safe(finding.text)}")
        console.print(line)


def _token(path: Path | None) -> tuple[str | None, str | None]:
    """Return the token, or why there is none although one was named."""
    try:
        if path is not None:
            return FileToken(path).current(), None
        given = os.environ.get(TOKEN_VARIABLE, "")
        return (checked(given, TOKEN_VARIABLE), None) if given else (None, None)
    except TokenError as error:
        return None, str(error)
