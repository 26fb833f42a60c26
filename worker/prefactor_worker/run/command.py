"""`prefactor-worker run`."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError

from prefactor_core.config import DEFAULT_API_URL
from prefactor_core.exceptions import PrefactorCoreError
from prefactor_worker.logs import LogFormat, set_up_logs
from prefactor_worker.options import ApiTokenFile, ApiUrl, Transport
from prefactor_worker.run.fleet import run_fleet
from prefactor_worker.run.server import ListenError
from prefactor_worker.run.settings import RunSettings
from prefactor_worker.run.worker import Worker
from prefactor_worker.token import TOKEN_VARIABLE, TokenError, find_token

logger = logging.getLogger("prefactor_worker")

Level = Literal["debug", "info", "warning", "error"]


def _option(variable: str, text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, envvar=f"PREFACTOR_{variable}", help=text, **more)


def run(
    *,
    transport: Transport,
    api_url: ApiUrl = DEFAULT_API_URL,
    api_token_file: ApiTokenFile = None,
    concurrency: Annotated[
        int, _option("CONCURRENCY", "Requests in flight at most.", min=1, max=64)
    ] = RunSettings.concurrency,
    batch: Annotated[
        int, _option("BATCH", "Operations in one request at most.", min=1, max=1000)
    ] = RunSettings.batch,
    max_retries: Annotated[
        int, _option("MAX_RETRIES", "Attempts after the first.", min=0, max=100)
    ] = RunSettings.max_retries,
    request_timeout: Annotated[
        float,
        _option(
            "REQUEST_TIMEOUT",
            "Seconds without a byte from the API after which a request fails. "
            "It also fails 10 s after that many in all.",
            min=0.1,
            max=600,
        ),
    ] = RunSettings.request_timeout,
    drain: Annotated[
        bool, _option("DRAIN", "End once everything is settled or dead-lettered.", "--drain")
    ] = RunSettings.drain,
    grace: Annotated[
        float, _option("GRACE", "Seconds that a stop may take.", min=0.5, max=3600)
    ] = RunSettings.grace,
    metrics_host: Annotated[
        str, _option("METRICS_HOST", "Where metrics and probes are served.")
    ] = RunSettings.metrics_host,
    metrics_port: Annotated[
        int,
        _option(
            "METRICS_PORT",
            "Port of /metrics, /healthz and /readyz; 0 for none. Further processes take the next ones.",
            min=0,
            max=65535,
        ),
    ] = RunSettings.metrics_port,
    log_format: Annotated[
        LogFormat, _option("LOG_FORMAT", "For people or for machines.")
    ] = LogFormat.CONSOLE,
    log_level: Annotated[Level, _option("LOG_LEVEL", "From which level on.")] = "info",
    processes: Annotated[int, _option("PROCESSES", "Workers to run, one a process.", min=1, max=64)] = 1,
    lifeline: Annotated[
        int | None, typer.Option(hidden=True, help="What ends when the process that started this one does.")
    ] = None,
) -> int:
    """Take operations from a broker and post them to the API, until SIGTERM.

    As many copies as you like share the work by themselves. SIGTERM finishes what is in flight and releases
    the rest; a second one ends at once.
    """
    set_up_logs(log_format, log_level.upper())
    with _wrong_settings_named():
        token = find_token(api_token_file)
        if token is None:
            raise TokenError(f"no token: set {TOKEN_VARIABLE}, or name a file")
        settings = RunSettings(
            transport=transport,
            api_url=api_url,
            token=token,
            concurrency=concurrency,
            batch=batch,
            max_retries=max_retries,
            request_timeout=request_timeout,
            drain=drain,
            grace=grace,
            metrics_host=metrics_host,
            metrics_port=metrics_port,
        )
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
    except TokenError as error:
        raise typer.BadParameter(str(error), param_hint="--api-token-file") from None
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
