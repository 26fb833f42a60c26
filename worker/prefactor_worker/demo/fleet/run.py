"""The demo with a fleet from beginning to end: what is set up for it, and the report."""

import logging
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from prefactor_worker.demo.children import Children
from prefactor_worker.demo.documents import Documents
from prefactor_worker.demo.emulator_process import EmulatorError, RunningEmulator, running_emulator
from prefactor_worker.demo.errors import DemoError
from prefactor_worker.demo.fleet.broker import DemoBroker, Place, demo_broker
from prefactor_worker.demo.fleet.jobs import plan_for
from prefactor_worker.demo.fleet.outcome import FleetOutcome, FleetResult
from prefactor_worker.demo.fleet.report import FleetReporter
from prefactor_worker.demo.fleet.scenario import Scenario, Stage
from prefactor_worker.demo.fleet.view import View
from prefactor_worker.demo.readback import EmulatorReader, ReadbackError, emulator_reader
from prefactor_worker.demo.signals import cancelled_by, signalled

_AGENT_PROCESSES: Final = 2
_FAR_AWAY: Final = "latency:ms=40"
"""The fault by which the emulator answers as late as an API that is not on the same machine."""


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """What to do.

    Attributes:
        documents: What the agents read.
        questions: What they are asked.
        place: Where on the broker it happens.
        port: Where the emulator listens; 0 picks a free port.
        keep: Whether to keep it running after the report, until a signal comes.
    """

    documents: Documents
    questions: Sequence[str]
    place: Place
    port: int = 0
    keep: bool = False


async def run_fleet_demo(settings: FleetSettings, view: View, reporter: FleetReporter) -> list[str]:
    """Run agents and workers, kill one worker in the middle, and report what came of it.

    Returns:
        Why it is no success; empty if it is one.

    Raises:
        DemoError: There is nothing to report.
    """
    # What there is to say is said once, and not by each library as well.
    logging.basicConfig(handlers=[logging.NullHandler()], force=True)
    with cancelled_by(signal.SIGTERM, signal.SIGHUP):
        try:
            async with (
                demo_broker(settings.place) as broker,
                running_emulator(settings.port, "--fault", _FAR_AWAY) as emulator,
            ):
                outcome = await _outcome(settings, view, broker, emulator)
                await broker.leave()
                reporter.report(outcome)
                if settings.keep:
                    reporter.announce(emulator.url)
                    await signalled(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        except EmulatorError as error:
            raise DemoError(f"the emulator did not start: {error}") from error
    return outcome.problems


async def _outcome(
    settings: FleetSettings, view: View, broker: DemoBroker, emulator: RunningEmulator
) -> FleetOutcome:
    async with emulator_reader(emulator.url) as reader:
        with view:
            result = await _result(settings, view, broker, emulator, reader)
        try:
            found = [await reader.trace(run.instance_id) for run in result.runs]
        except ReadbackError as error:
            raise DemoError(f"what came of it could not be read back: {error}") from error
        return FleetOutcome(
            transport=broker.name,
            warnings=broker.warnings,
            api_url=emulator.url,
            documents=settings.documents,
            result=result,
            traces=[trace for trace in found if trace is not None],
            requests=await reader.requests_served() or 0,
        )


async def _result(
    settings: FleetSettings, view: View, broker: DemoBroker, emulator: RunningEmulator, reader: EmulatorReader
) -> FleetResult:
    files = settings.documents.files
    plan = plan_for(settings.questions, len(files), _AGENT_PROCESSES)
    view.event(
        f"{plan.instances} agent instances in {plan.processes} processes, {len(files)} files; "
        f"by {broker.name} and two workers to {emulator.url}"
    )
    for warning in broker.warnings:
        view.event(f"broker: {warning}")
    with tempfile.TemporaryDirectory(prefix="prefactor-demo-") as name:
        folder = Path(name)
        stage = Stage(settings.place, broker, emulator, reader, folder)
        async with httpx.AsyncClient() as http, Children(folder) as children:
            return await Scenario(stage, children, http, view).run(plan, files)
