"""One look at everything that runs: what is shown live, and by what it is decided when to do what."""

from collections.abc import Sequence
from dataclasses import dataclass

from prefactor_worker.demo.fleet.jobs import Progress
from prefactor_worker.demo.fleet.workers import WorkerFigures


@dataclass(frozen=True, slots=True)
class AgentLook:
    """One of the agents' processes.

    Attributes:
        name: What it is called.
        questions: How many it has to ask.
        progress: How far it is.
    """

    name: str
    questions: int
    progress: Progress


@dataclass(frozen=True, slots=True)
class WorkerLook:
    """One worker.

    Attributes:
        name: What it is called.
        pid: Its process.
        figures: What it said last.
        killed: Whether it was killed.
    """

    name: str
    pid: int
    figures: WorkerFigures
    killed: bool


@dataclass(frozen=True, slots=True)
class FleetLook:
    """All of it.

    Attributes:
        seconds: Since the agents were started.
        agents: Their processes.
        workers: Both.
        waiting: What waits at the broker, ``None`` while that is unavailable.
        effects: What has taken effect at the emulator.
    """

    seconds: float
    agents: Sequence[AgentLook]
    workers: Sequence[WorkerLook]
    waiting: int | None
    effects: int

    @property
    def put(self) -> int:
        """Operations that all agents have put."""
        return sum(agent.progress.put for agent in self.agents)

    @property
    def answered(self) -> float:
        """The share of the questions that are done with."""
        answered = sum(agent.progress.answered for agent in self.agents)
        return answered / sum(agent.questions for agent in self.agents)

    @property
    def idle(self) -> bool:
        """Whether nothing is left at the broker, nor in the hands of a worker."""
        held = sum(worker.figures.held for worker in self.workers if not worker.killed)
        return self.waiting == 0 and not held

    @property
    def moved(self) -> tuple[object, ...]:
        """What changes as long as anything goes on."""
        return (self.put, self.effects, self.waiting, self.answered)
