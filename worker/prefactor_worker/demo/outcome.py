"""What a run of the demo came to, and whether everything that was put took place."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prefactor_core import CloseSummary
from prefactor_worker.demo.documents import Documents
from prefactor_worker.demo.meter import Meter, TelemetryCost
from prefactor_worker.demo.readback import Effect, Trace
from prefactor_worker.demo.search import Excerpt


@dataclass(frozen=True, slots=True)
class AgentRun:
    """One agent's work.

    Attributes:
        question: What it was asked.
        instance_id: The agent instance that recorded it.
        sentences: Its answer.
        failure: Why it has none, if the work failed.
    """

    question: str
    instance_id: str
    sentences: Sequence[Excerpt] = ()
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Readback:
    """What the emulator says of these runs.

    Attributes:
        traces: The instances, in the order of the questions.
        effects: What took place, by type of write.
        requests: API requests that it has served meanwhile.
        problems: Where it differs from what the agents did; empty if it does not.
    """

    traces: Sequence[Trace]
    effects: dict[str, int]
    requests: int
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time went, in seconds.

    Attributes:
        starting: Until the client took calls.
        running: From the first agent's beginning to the last one's end.
        closing: Until the client had delivered what was left then.
        telemetry: Of ``running``: inside the SDK's calls.
    """

    starting: float
    running: float
    closing: float
    telemetry: TelemetryCost


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that there is to report.

    Attributes:
        api_url: Where the telemetry went.
        documents: What was read.
        runs: What the agents did, in the order of the questions.
        summary: What became of what was put.
        timing: Where the time went.
        readback: What the emulator says; ``None`` if the API is none, which keeps its traces to itself.
    """

    api_url: str
    documents: Documents
    runs: Sequence[AgentRun]
    summary: CloseSummary
    timing: Timing
    readback: Readback | None

    @property
    def problems(self) -> list[str]:
        """Why this is no success; empty if it is one."""
        summary = self.summary
        problems = []
        if not summary.complete:
            problems.append(
                f"{summary.delivered} of {summary.put} operations were delivered: "
                f"{summary.dead_lettered} dead-lettered, {sum(summary.dropped.values())} dropped, "
                f"{summary.left} left"
            )
        if self.readback is not None:
            problems += self.readback.problems
        return problems


def compare(meter: Meter, put: int, effects: Iterable[Effect]) -> list[str]:
    """Compare what took place with what the agents did: each thing once, and nothing else.

    Args:
        meter: What the agents opened; all of it has been finished.
        put: Operations that the client says were put.
        effects: What took place.

    Returns:
        The differences, in words.
    """
    expected: Counter[Effect] = Counter()
    for instance_id in meter.instance_ids:
        expected.update(Effect(f"agent_instances/{step}", instance_id, None) for step in _INSTANCE_STEPS)
    for span_id, instance_id in meter.instance_of.items():
        expected.update(Effect(f"agent_spans/{step}", instance_id, span_id) for step in _SPAN_STEPS)
    found = Counter(effects)
    problems = []
    if expected.total() != put:
        problems.append(f"the agents did {expected.total()} things, and {put} operations were put")
    for words, difference in (("are missing", expected - found), ("should not be there", found - expected)):
        if difference:
            example = next(iter(difference))
            problems.append(
                f"{difference.total()} effects {words} at the emulator, {example.type} of "
                f"{example.span_id or example.instance_id} among them"
            )
    return problems


_INSTANCE_STEPS = ("register", "start", "finish")
_SPAN_STEPS = ("create", "finish")
