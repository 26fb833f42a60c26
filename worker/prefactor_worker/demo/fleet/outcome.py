"""What a run of the demo with a fleet came to."""

from collections.abc import Sequence
from dataclasses import dataclass

from prefactor_core import CloseSummary
from prefactor_worker.demo.documents import Documents
from prefactor_worker.demo.fleet.checker import Count
from prefactor_worker.demo.fleet.look import FleetLook
from prefactor_worker.demo.meter import TelemetryCost
from prefactor_worker.demo.outcome import AgentRun
from prefactor_worker.demo.readback import Trace


@dataclass(frozen=True, slots=True)
class Kill:
    """A worker that was killed in the middle.

    Attributes:
        worker: Its name.
        pid: Its process.
        settled: Operations that it had settled.
        held: Operations that it held.
        effects: Operations that had taken effect at the emulator.
        put: Operations that had been put.
    """

    worker: str
    pid: int
    settled: int
    held: int
    effects: int
    put: int


@dataclass(frozen=True, slots=True)
class FleetResult:
    """What came of agents and workers.

    Attributes:
        runs: The agents' work, where each question was asked for the first time.
        rounds: How often each question was asked.
        summaries: What became of what each of the agents' processes put.
        kill: Which worker was killed, and when.
        last: The last look, after everything was settled.
        dead_letters: Operations that were given up.
        count: What the checker found.
        cost: What telemetry cost the agents.
        working: Seconds that all agents took, added up.
    """

    runs: Sequence[AgentRun]
    rounds: int
    summaries: Sequence[CloseSummary]
    kill: Kill
    last: FleetLook
    dead_letters: int
    count: Count
    cost: TelemetryCost
    working: float

    @property
    def settled(self) -> int:
        """Operations that were put, and are neither at the broker any more nor were given up."""
        return self.count.puts - (self.last.waiting or 0) - self.dead_letters


@dataclass(frozen=True, slots=True)
class FleetOutcome:
    """All that there is to report.

    Attributes:
        transport: What messages call the broker.
        warnings: By which of its settings operations can be lost or held up.
        api_url: Where the emulator was.
        documents: What was read.
        result: What came of agents and workers.
        traces: The runs' instances, in their order.
        requests: API requests that the emulator has served.
    """

    transport: str
    warnings: Sequence[str]
    api_url: str
    documents: Documents
    result: FleetResult
    traces: Sequence[Trace]
    requests: int

    @property
    def problems(self) -> list[str]:
        """Why this is no success; empty if it is one."""
        result = self.result
        problems = [
            f"the broker has confirmed {summary.delivered} of {summary.put} operations: "
            f"{sum(summary.dropped.values())} dropped, {summary.left} left"
            for summary in result.summaries
            if not summary.complete
        ]
        put = sum(summary.put for summary in result.summaries)
        if put != result.count.puts:
            problems.append(f"the agents put {put} operations, and {result.count.puts} were written down")
        if not result.count.clean:
            problems.append(
                f"{result.count.lost} lost, {result.count.doubled} doubled, "
                f"{result.count.out_of_order} out of order, {result.count.unexpected} unexpected"
            )
        if result.dead_letters:
            problems.append(f"{result.dead_letters} dead letters at the broker")
        return problems
