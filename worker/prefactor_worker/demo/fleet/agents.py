"""The agents' processes, seen from the demo."""

import asyncio
import os
from pathlib import Path
from typing import Final, Self

from prefactor_worker.demo.children import Child, Children
from prefactor_worker.demo.documents import SourceFile
from prefactor_worker.demo.errors import DemoError
from prefactor_worker.demo.fleet.jobs import SECONDS, Job, Plan, Progress, Report
from prefactor_worker.run.command import TRANSPORT_VARIABLE

_PROGRAM: Final = "prefactor_worker.demo.fleet.agent_program"


def plain_environment() -> dict[str, str]:
    """Return this process's variables, without any that would configure this project's programs."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFACTOR_")}


class AgentProcess:
    """A process that asks a share of the questions.

    Args:
        child: The process.
        job: What it was told.
    """

    def __init__(self, child: Child, job: Job) -> None:
        self.child = child
        self.job = job
        self.progress = Progress()
        """How far it is, by what it said last."""
        self._reading = asyncio.create_task(self._read(), name=f"read-{child.name}")

    @classmethod
    async def start(
        cls,
        children: Children,
        folder: Path,
        plan: Plan,
        number: int,
        files: list[SourceFile],
        transport: str,
    ) -> Self:
        """Start one.

        Args:
            children: Ends it.
            folder: For the files by which it is told and tells.
            plan: Who asks what.
            number: Which of the plan's processes it is.
            files: What its agents read.
            transport: Where its telemetry goes.
        """
        name = f"agent {number + 1}"
        questions = plan.share(number)
        job = Job(
            questions=questions,
            interval=SECONDS / max(1, len(questions)),
            files=files,
            puts=folder / f"{name}.puts",
            report=folder / f"{name}.report",
        )
        told = folder / f"{name}.job"
        told.write_text(job.model_dump_json())
        # Not on its command line: the URL may hold a password.
        environment = {**plain_environment(), TRANSPORT_VARIABLE: transport}
        return cls(await children.start(name, ("-m", _PROGRAM, str(told)), environment), job)

    @property
    def finished(self) -> bool:
        """Whether it has done its job.

        Raises:
            DemoError: It has ended without.
        """
        status = self.child.status
        if status is None or not self._reading.done():
            return False
        if status:
            raise DemoError(self.child.ending)
        return True

    def report(self) -> Report:
        """Return what it told at its end."""
        return Report.model_validate_json(self.job.report.read_bytes())

    async def _read(self) -> None:
        while line := await self.child.line():
            self.progress = Progress.model_validate_json(line)
