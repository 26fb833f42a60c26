"""What an agent's process is told, and what it tells: files of JSON, and a line for each bit of progress."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from prefactor_core import CloseSummary
from prefactor_worker.demo.documents import SourceFile
from prefactor_worker.demo.outcome import AgentRun

OPERATIONS: Final = 3_000
"""How many there are to be at least, so that there is a middle to kill a worker in."""
INSTANCES: Final = 24
"""The same, of agent instances."""
SECONDS: Final = 6.0
"""Over which the questions are spread."""
_SPANS_BESIDE_FILES: Final = 5


class Job(BaseModel):
    """What one process is told.

    Attributes:
        questions: To be asked, an agent instance each.
        interval: Seconds between the beginnings of two of them.
        files: What the agents read.
        puts: Where to write down what was put, a line an operation.
        report: Where to write the report.
    """

    questions: list[str]
    interval: float
    files: list[SourceFile]
    puts: Path
    report: Path


class Progress(BaseModel):
    """How far one process is.

    Attributes:
        answered: Questions that are done with.
        put: Operations that its agents have put.
        confirmed: Those that the broker has confirmed.
    """

    answered: int = 0
    put: int = 0
    confirmed: int = 0


class Report(BaseModel):
    """What one process tells at its end.

    Attributes:
        runs: The agents' work, in the order of the questions.
        summary: What became of what was put.
        working: Seconds that the agents took, added up.
        span_seconds: Of those, inside the SDK's calls, for each span.
        instance_seconds: The same, for all instances together.
    """

    runs: list[AgentRun]
    summary: CloseSummary
    working: float
    span_seconds: list[float]
    instance_seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Who asks what.

    Attributes:
        questions: Those that were given.
        rounds: How often each is asked.
        processes: How many processes share them.
    """

    questions: Sequence[str]
    rounds: int
    processes: int

    @property
    def instances(self) -> int:
        """How many agent instances there will be."""
        return self.rounds * len(self.questions)

    def share(self, process: int) -> list[str]:
        """Return the questions of one process."""
        return self._all[process :: self.processes]

    def first_round(self, runs: Sequence[Sequence[AgentRun]]) -> Iterator[AgentRun]:
        """Yield, of the processes' runs, those that asked each question for the first time, in its order."""
        for number in range(len(self.questions)):
            yield runs[number % self.processes][number // self.processes]

    @property
    def _all(self) -> list[str]:
        return list(self.questions) * self.rounds


def plan_for(questions: Sequence[str], files: int, processes: int) -> Plan:
    """Have the questions asked as often as it takes for a load with a middle."""
    operations = len(questions) * (2 * (files + _SPANS_BESIDE_FILES) + 3)
    rounds = max(-(-OPERATIONS // operations), -(-INSTANCES // len(questions)))
    return Plan(questions, rounds, processes)
