"""The demo from beginning to end: where the telemetry goes, the agents, the reading back, the report."""

import asyncio
import contextlib
import secrets
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from prefactor_core import (
    HttpClientConfig,
    PrefactorCoreClient,
    PrefactorCoreConfig,
    PrefactorTelemetryFailureError,
)
from prefactor_worker.demo.agent import (
    AGENT_VERSION,
    NothingReadableError,
    answer_question,
    schema_registry,
)
from prefactor_worker.demo.documents import Documents
from prefactor_worker.demo.emulator_process import EmulatorError, running_emulator
from prefactor_worker.demo.errors import DemoError
from prefactor_worker.demo.meter import Meter
from prefactor_worker.demo.outcome import AgentRun, Outcome, Readback, Timing, compare
from prefactor_worker.demo.readback import EmulatorReader, ReadbackError, emulator_reader
from prefactor_worker.demo.report import Reporter
from prefactor_worker.demo.signals import cancelled_by, signalled

_AGENTS_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What to do.

    Attributes:
        documents: What the agents read.
        questions: What they are asked; each is one agent instance.
        api: Where the telemetry goes; by default to an emulator of the demo's own.
        port: Where that emulator listens; 0 picks a free port.
        keep: Whether to keep it running after the report, until a signal comes.
    """

    documents: Documents
    questions: Sequence[str]
    api: HttpClientConfig | None = None
    port: int = 0
    keep: bool = False


async def run_demo(settings: DemoSettings, reporter: Reporter) -> list[str]:
    """Run the agents, read back what came of their telemetry, and report it.

    Returns:
        Why it is no success: what was not delivered, or has not taken place as far as that can be read back.
        Empty if it is one.

    Raises:
        DemoError: There is nothing to report.
    """
    # Whoever ends the demo ends the emulator too, also where it is not a Ctrl-C, which asyncio sees to.
    with cancelled_by(signal.SIGTERM, signal.SIGHUP):
        async with _api(settings) as api, emulator_reader(api.api_url) as reader:
            outcome = await _observed_run(settings, api, reader)
            reporter.report(outcome)
            if settings.keep:
                reporter.announce(api.api_url)
                await signalled(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return outcome.problems


@contextlib.asynccontextmanager
async def _api(settings: DemoSettings) -> AsyncIterator[HttpClientConfig]:
    if settings.api is not None:
        yield settings.api
        return
    async with contextlib.AsyncExitStack() as stack:
        try:
            emulator = await stack.enter_async_context(running_emulator(settings.port))
        except EmulatorError as error:
            raise DemoError(f"the emulator did not start: {error}") from error
        # It takes any token, and each token is an account of its own.
        yield HttpClientConfig(api_url=emulator.url, api_token=secrets.token_hex(16))


async def _observed_run(settings: DemoSettings, api: HttpClientConfig, reader: EmulatorReader) -> Outcome:
    served_before = await reader.requests_served()
    meter = Meter()
    config = PrefactorCoreConfig(http_config=api, schema_registry=schema_registry())
    try:
        starting = perf_counter()
        async with PrefactorCoreClient(config) as client:
            began = perf_counter()
            runs = await _agents(client, meter, settings)
            ended = perf_counter()
            summary = await client.close()
            closed = perf_counter()
    except PrefactorTelemetryFailureError as failure:
        raise DemoError(f"telemetry to {api.api_url} failed: {failure}") from failure
    readback = None
    if served_before is not None:
        readback = await _read_back(reader, meter, runs, summary.put, served_before)
    timing = Timing(began - starting, ended - began, closed - ended, meter.cost)
    return Outcome(api.api_url, settings.documents, runs, summary, timing, readback)


async def _agents(client: PrefactorCoreClient, meter: Meter, settings: DemoSettings) -> list[AgentRun]:
    at_once = asyncio.Semaphore(_AGENTS_AT_ONCE)

    async def ask(question: str) -> AgentRun:
        async with at_once:
            request = meter.instance(client, AGENT_VERSION)
            try:
                async with request as instance:
                    sentences = await answer_question(instance, question, settings.documents.files)
            except NothingReadableError as error:
                return AgentRun(question, request.handle.id, failure=str(error))
            return AgentRun(question, instance.handle.id, sentences)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(question)) for question in settings.questions]
    except ExceptionGroup as failures:
        # The same failure meets every agent at its next step; one of them tells it all.
        if failures.split(PrefactorTelemetryFailureError)[1] is None:
            raise _first(failures) from failures
        raise
    return [task.result() for task in tasks]


def _first(group: ExceptionGroup[Exception]) -> Exception:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first


async def _read_back(
    reader: EmulatorReader, meter: Meter, runs: Sequence[AgentRun], put: int, served_before: int
) -> Readback:
    try:
        found = [await reader.trace(run.instance_id) for run in runs]
        effects = await reader.effects(meter.instance_ids)
    except ReadbackError as error:
        raise DemoError(f"what came of it could not be read back: {error}") from error
    served = await reader.requests_served()
    return Readback(
        traces=[trace for trace in found if trace is not None],
        effects=dict(Counter(effect.type for effect in effects)),
        requests=(served or served_before) - served_before,
        problems=compare(meter, put, effects),
    )
