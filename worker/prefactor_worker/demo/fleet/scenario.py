"""What happens: workers, agents, one worker killed in the middle, and the other one finishing alone."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from prefactor_worker.demo.children import Children
from prefactor_worker.demo.documents import SourceFile
from prefactor_worker.demo.emulator_process import RunningEmulator
from prefactor_worker.demo.errors import DemoError
from prefactor_worker.demo.fleet.agents import AgentProcess
from prefactor_worker.demo.fleet.broker import DemoBroker, Place
from prefactor_worker.demo.fleet.checker import check_effects
from prefactor_worker.demo.fleet.jobs import Plan
from prefactor_worker.demo.fleet.look import AgentLook, FleetLook, WorkerLook
from prefactor_worker.demo.fleet.outcome import FleetResult, Kill
from prefactor_worker.demo.fleet.view import View
from prefactor_worker.demo.fleet.workers import WorkerProcess, free_ports
from prefactor_worker.demo.meter import TelemetryCost
from prefactor_worker.demo.readback import EmulatorReader

_WORKERS: Final = 2
_LOOK_SECONDS: Final = 0.15
_READY_SECONDS: Final = 30.0
_STILL_SECONDS: Final = 45.0
"""Without any change for so long, nothing will change any more."""
_QUIET_LOOKS: Final = 4
"""Looks in a row at which nothing is left, until that is believed."""
_LATE_SECONDS: Final = 5.0
"""For so long what has left the broker without an effect may still have one."""
_EARLIEST: Final = 1 / 3
_LATEST: Final = 2 / 3
"""Shares of the questions between which a worker is killed: as soon as one has its hands full."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What has been set up for it.

    Attributes:
        place: Where on the broker it happens.
        broker: What waits there.
        emulator: The API.
        reader: Reads from it.
        folder: For the files of the processes.
    """

    place: Place
    broker: DemoBroker
    emulator: RunningEmulator
    reader: EmulatorReader
    folder: Path


class Scenario:
    """Runs it.

    Args:
        stage: What has been set up.
        children: Ends the processes.
        http: For asking the workers.
        view: Shows what happens.
    """

    def __init__(self, stage: Stage, children: Children, http: httpx.AsyncClient, view: View) -> None:
        self._stage = stage
        self._children = children
        self._http = http
        self._view = view
        self._workers: list[WorkerProcess] = []
        self._agents: list[AgentProcess] = []
        self._kill: Kill | None = None
        self._taken_over = False
        self._effects = 0
        self._partitions = 0
        self._began = 0.0

    async def run(self, plan: Plan, files: Sequence[SourceFile]) -> FleetResult:
        """Run all of it.

        Args:
            plan: Who asks what.
            files: What the agents read.

        Raises:
            DemoError: A process has failed, or nothing moves any more.
        """
        await self._start_workers()
        await self._start_agents(plan, list(files))
        last = await self._watch()
        if self._kill is None:
            raise DemoError("everything was settled before a worker could be killed")
        for worker in self._workers:
            if not worker.killed:
                await worker.stop()
        return await self._result(plan, last, self._kill)

    async def _start_workers(self) -> None:
        for number, port in enumerate(free_ports(_WORKERS)):
            self._workers.append(
                await WorkerProcess.start(
                    *(self._children, self._http, number, port),
                    *(self._stage.place.url, self._stage.emulator.url),
                )
            )
        try:
            async with asyncio.timeout(_READY_SECONDS):
                while not self._shared_out:
                    await asyncio.sleep(_LOOK_SECONDS)
                    await self._ask_workers()
                    self._partitions = await self._stage.broker.partitions()
        except TimeoutError:
            why = min(self._workers, key=lambda worker: worker.figures.owned).child.last_words
            raise DemoError(
                f"the workers have not shared out the partitions in {_READY_SECONDS:.0f} s: {why}"
            ) from None
        for worker in self._workers:
            self._view.event(
                f"{worker.child.name} (process {worker.child.pid}) owns {worker.figures.owned} partitions"
            )

    @property
    def _shared_out(self) -> bool:
        """Whether every partition has an owner, and every worker one, as far as there are enough."""
        owned = [worker.figures.owned for worker in self._workers]
        owners = sum(1 for number in owned if number)
        return sum(owned) == self._partitions > 0 and owners == min(self._partitions, len(owned))

    async def _start_agents(self, plan: Plan, files: list[SourceFile]) -> None:
        for number in range(plan.processes):
            self._agents.append(
                await AgentProcess.start(
                    self._children, self._stage.folder, plan, number, files, self._stage.place.url
                )
            )
        self._began = asyncio.get_running_loop().time()

    async def _watch(self) -> FleetLook:
        """Look until nothing is left to do, and kill a worker on the way; return the last look."""
        loop = asyncio.get_running_loop()
        quiet, moved_at = 0, self._began
        moved: tuple[object, ...] = ()
        while True:
            finished = [agent.finished for agent in self._agents]
            look = await self._look()
            self._view.show(look)
            if self._kill is None:
                await self._kill_in_the_middle(look)
            elif not self._taken_over:
                self._look_for_takeover()
            if look.moved != moved:
                moved, moved_at = look.moved, loop.time()
            still = loop.time() - moved_at
            quiet = quiet + 1 if all(finished) and look.idle else 0
            if quiet >= _QUIET_LOOKS and (look.effects >= look.put or still > _LATE_SECONDS):
                return look
            if still > _STILL_SECONDS:
                raise DemoError(_stuck(look, self._stage.broker.warnings))
            await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self) -> FleetLook:
        waiting, effects, _ = await asyncio.gather(
            self._stage.broker.waiting(), self._stage.reader.effects_logged(), self._ask_workers()
        )
        self._effects = self._effects if effects is None else effects
        return FleetLook(
            asyncio.get_running_loop().time() - self._began,
            [AgentLook(one.child.name, len(one.job.questions), one.progress) for one in self._agents],
            [WorkerLook(one.child.name, one.child.pid, one.figures, one.killed) for one in self._workers],
            waiting,
            self._effects,
        )

    async def _ask_workers(self) -> None:
        await asyncio.gather(*(worker.ask() for worker in self._workers))

    async def _kill_in_the_middle(self, look: FleetLook) -> None:
        more_to_come = look.answered < 1 or look.effects < look.put
        if not look.effects or not more_to_come or look.answered < _EARLIEST:
            return
        await self._ask_workers()
        victim = max(self._workers, key=lambda worker: (worker.figures.held, worker.figures.settled))
        if not victim.figures.held and look.answered < _LATEST:
            return
        await victim.kill()
        name, figures = victim.child.name, victim.figures
        put = max(look.put, look.effects)  # the agents tell a little late
        self._kill = Kill(name, victim.child.pid, figures.settled, figures.held, look.effects, put)
        self._view.event(
            f"{name} was killed with SIGKILL: it had settled {figures.settled} operations and held "
            f"{figures.held}; {look.effects} of {put} had taken effect"
        )

    def _look_for_takeover(self) -> None:
        for worker in self._workers:
            if not worker.killed and worker.figures.owned >= self._partitions:
                self._taken_over = True
                self._view.event(f"{worker.child.name} owns all {self._partitions} partitions now")

    async def _result(self, plan: Plan, last: FleetLook, kill: Kill) -> FleetResult:
        reports = [agent.report() for agent in self._agents]
        count = await check_effects(
            self._children,
            self._stage.folder,
            self._stage.emulator.database,
            [agent.job.puts for agent in self._agents],
        )
        return FleetResult(
            runs=list(plan.first_round([report.runs for report in reports])),
            rounds=plan.rounds,
            summaries=[report.summary for report in reports],
            kill=kill,
            last=last,
            # Looked for only where something is missing: what was here before is none of the demo's business.
            dead_letters=await self._stage.broker.dead_letters() if count.lost else 0,
            count=count,
            cost=TelemetryCost.of(
                [seconds for report in reports for seconds in report.span_seconds],
                sum(report.instance_seconds for report in reports),
            ),
            working=sum(report.working for report in reports),
        )


def _stuck(look: FleetLook, warnings: Sequence[str]) -> str:
    where = "the broker is unavailable" if look.waiting is None else f"{look.waiting} wait at the broker"
    why = f" ({'; '.join(warnings)})" if warnings else ""
    return (
        f"nothing has moved for {_STILL_SECONDS:.0f} s: {look.put} operations were put, {look.effects} have "
        f"taken effect, {where}{why}"
    )
