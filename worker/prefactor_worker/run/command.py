"""`prefactor-worker run`."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, Literal

import typer
from pydantic import ValidationError

from prefactor_core.config import DEFAULT_API_URL
from prefactor_core.exceptions import PrefactorCoreError
from prefactor_worker.logs import set_up_logs
from prefactor_worker.run.fleet import run_fleet
from prefactor_worker.run.server import ListenError
from prefactor_worker.run.settings import LogFormat, RunSettings, TokenSource
from prefactor_worker.run.token import FileToken, FixedToken, TokenError
from prefactor_worker.run.worker import Worker

logger = logging.getLogger("prefactor_worker")

TOKEN_VARIABLE: Final = "PREFACTOR_API_TOKEN"  # noqa: S105 -- a variable's name
TRANSPORT_VARIABLE: Final = "PREFACTOR_TRANSPORT_URL"

Level = Literal["debug", "info", "warning", "error"]


def run(
    *,
    transport: Annotated[
        str,
        typer.Option(envvar=TRANSPORT_VARIABLE, metavar="URL", help="The broker: redis://... or amqp://..."),
    ],
    api_url: Annotated[
        str, typer.Option(envvar="PREFACTOR_API_URL", metavar="URL", help="Where operations are posted.")
    ] = DEFAULT_API_URL,
    api_token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="PREFACTOR_API_TOKEN_FILE",
            metavar="FILE",
            help=f"The API's token, read again when the file changes. Else {TOKEN_VARIABLE} is taken.",
        ),
    ] = None,
    concurrency: Annotated[
        int,
        typer.Option(envvar="PREFACTOR_CONCURRENCY", min=1, max=64, help="Requests in flight at most."),
    ] = 4,
    batch: Annotated[
        int,
        typer.Option(envvar="PREFACTOR_BATCH", min=1, max=1000, help="Operations in one request at most."),
    ] = 250,
    max_retries: Annotated[
        int, typer.Option(envvar="PREFACTOR_MAX_RETRIES", min=0, max=100, help="Attempts after the first.")
    ] = 3,
    request_timeout: Annotated[
        float,
        typer.Option(
            envvar="PREFACTOR_REQUEST_TIMEOUT", min=0.1, max=600, help="Seconds without a byte from the API."
        ),
    ] = 30.0,
    drain: Annotated[
        bool,
        typer.Option(
            "--drain", envvar="PREFACTOR_DRAIN", help="End once everything is settled or dead-lettered."
        ),
    ] = False,
    grace: Annotated[
        float,
        typer.Option(envvar="PREFACTOR_GRACE", min=0.5, max=3600, help="Seconds that a stop may take."),
    ] = 30.0,
    metrics_host: Annotated[
        str, typer.Option(envvar="PREFACTOR_METRICS_HOST", help="Where metrics and probes are served.")
    ] = "0.0.0.0",  # noqa: S104 -- a platform's scraper comes from elsewhere
    metrics_port: Annotated[
        int,
        typer.Option(
            envvar="PREFACTOR_METRICS_PORT",
            min=0,
            max=65535,
            help="Its port: /metrics, /healthz, /readyz. 0 for none. Further processes take the next ones.",
        ),
    ] = 9465,
    log_format: Annotated[
        LogFormat, typer.Option(envvar="PREFACTOR_LOG_FORMAT", help="For people or for machines.")
    ] = LogFormat.CONSOLE,
    log_level: Annotated[
        Level, typer.Option(envvar="PREFACTOR_LOG_LEVEL", help="From which level on.")
    ] = "info",
    processes: Annotated[
        int, typer.Option(envvar="PREFACTOR_PROCESSES", min=1, max=64, help="Workers to run, one a process.")
    ] = 1,
    lifeline: Annotated[
        int | None, typer.Option(hidden=True, help="What ends when the process that started this one does.")
    ] = None,
) -> int:
    """Take operations from a broker and post them to the API, until SIGTERM.

    As many copies as you like share the work by themselves. SIGTERM finishes what is in flight and gives the
    rest back; a second one ends at once.
    """
    set_up_logs(log_format, log_level.upper())
    settings = RunSettings(
        transport=transport,
        api_url=api_url,
        token=_token(api_token_file),
        concurrency=concurrency,
        batch=batch,
        max_retries=max_retries,
        request_timeout=request_timeout,
        drain=drain,
        grace=grace,
        metrics_host=metrics_host,
        metrics_port=metrics_port,
    )
    with _wrong_settings_named():
        if processes == 1:
            return asyncio.run(_work(settings, lifeline))
        Worker(settings)  # what is wrong with the settings is said once, not by each process
    return run_fleet(processes, metrics_port, grace)


@contextmanager
def _wrong_settings_named() -> Iterator[None]:
    """Turn what is wrong with a setting into the one line about it."""
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise typer.BadParameter(first["msg"], param_hint=str(first["loc"][0])) from None
    except PrefactorCoreError as error:
        raise typer.BadParameter(str(error), param_hint="--transport") from None
    except ListenError as error:
        raise typer.BadParameter(str(error), param_hint="--metrics-port") from None


async def _work(settings: RunSettings, lifeline: int | None) -> int:
    worker = Worker(settings)
    loop = asyncio.get_running_loop()
    asked = False

    def on_signal(number: signal.Signals) -> None:
        nonlocal asked
        if asked:
            logger.warning("a second %s: ending at once", number.name)
            sys.stderr.flush()
            os._exit(128 + number)
        asked = True
        logger.info("%s: finishing what is in flight", number.name)
        worker.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    if lifeline is not None:
        os.set_inheritable(lifeline, False)  # noqa: FBT003 -- its only argument

        def on_end() -> None:
            loop.remove_reader(lifeline)
            logger.warning("the first process is gone: finishing what is in flight")
            worker.stop()

        loop.add_reader(lifeline, on_end)  # nothing is written there: it can be read once it has ended
    return 0 if await worker.run() else 1


def _token(path: Path | None) -> TokenSource:
    try:
        if path is not None:
            return FileToken(path)
        token = os.environ.get(TOKEN_VARIABLE, "")
        if not token:
            raise typer.BadParameter(
                f"no token: set {TOKEN_VARIABLE}, or name a file", param_hint="--api-token-file"
            )
        return FixedToken(token, TOKEN_VARIABLE)
    except TokenError as error:
        raise typer.BadParameter(str(error), param_hint="--api-token-file") from None
