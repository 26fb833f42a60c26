"""What telemetry costs the agent: the one place where the SDK is called, with a clock round every call."""

import math
import statistics
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from time import perf_counter
from types import TracebackType
from typing import Any, Self, TypeVar

from prefactor_core import AgentInstanceHandle, PrefactorCoreClient, SpanContext

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TelemetryCost:
    """Seconds that agents spent inside the SDK's calls.

    Attributes:
        spans: How many spans that was for.
        span_seconds: For all spans together.
        span_median: For one span, from entering to having left it.
        span_p99: The same, of the 99th of a hundred.
        instance_seconds: For registering, starting and finishing the instances.
    """

    spans: int
    span_seconds: float
    span_median: float
    span_p99: float
    instance_seconds: float

    @classmethod
    def of(cls, spans: Iterable[float], instance_seconds: float) -> Self:
        """Sum up.

        Args:
            spans: Seconds for each span.
            instance_seconds: For all instances together.
        """
        each = sorted(spans)
        return cls(
            spans=len(each),
            span_seconds=sum(each),
            span_median=statistics.median(each) if each else 0.0,
            span_p99=each[math.ceil(0.99 * len(each)) - 1] if each else 0.0,
            instance_seconds=instance_seconds,
        )

    @property
    def total(self) -> float:
        """All of it."""
        return self.span_seconds + self.instance_seconds


class Meter:
    """Measures the SDK's calls of all agents, and remembers what they opened.

    A call that waits is measured to its end: this is how long the agent was held up, not how busy the
    processor was.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._by_span: dict[str, float] = {}
        self.instance_seconds = 0.0
        """Seconds of the calls that were about instances."""
        self.instance_ids: list[str] = []
        """Instances that were registered."""
        self.instance_of: dict[str, str] = {}
        """Spans that were opened, with their instances."""

    @property
    def cost(self) -> TelemetryCost:
        """What has been measured so far."""
        return TelemetryCost.of(self.span_seconds, self.instance_seconds)

    @property
    def span_seconds(self) -> list[float]:
        """Seconds for each span so far."""
        return list(self._by_span.values())

    def instance(self, client: PrefactorCoreClient, agent_version: dict[str, Any]) -> "MeasuredInstance":
        """Register, start and finish an agent instance with an ``async with``, which yields it."""
        return MeasuredInstance(self, client, agent_version)

    async def timed(self, call: Awaitable[T]) -> tuple[T, float]:
        """Await a call of the SDK, and return its result and how long it took."""
        began = self._clock()
        result = await call
        return result, self._clock() - began

    def add_instance_seconds(self, seconds: float) -> None:
        """Count the time of a call that was about an instance."""
        self.instance_seconds += seconds

    def add_span_seconds(self, span_id: str, seconds: float) -> None:
        """Count the time of a call that was about a span."""
        self._by_span[span_id] = self._by_span.get(span_id, 0.0) + seconds


class MeasuredInstance:
    """An agent instance whose telemetry is measured.

    Args:
        meter: What counts.
        client: Where it is registered.
        agent_version: What the agent is.
    """

    def __init__(self, meter: Meter, client: PrefactorCoreClient, agent_version: dict[str, Any]) -> None:
        self._meter = meter
        self._request = client.create_agent_instance(agent_version=agent_version)
        self._handle: AgentInstanceHandle | None = None

    @property
    def handle(self) -> AgentInstanceHandle:
        """The SDK's handle, while the instance is open."""
        if self._handle is None:
            raise RuntimeError("the instance is not registered: use it with 'async with'")
        return self._handle

    def span(self, schema_name: str, payload: dict[str, Any]) -> "MeasuredSpan":
        """Open and start a span for the length of an ``async with``."""
        return MeasuredSpan(self._meter, self.handle, schema_name, payload)

    async def __aenter__(self) -> Self:
        """Register and start."""
        handle, seconds = await self._meter.timed(self._request.__aenter__())
        self._handle = handle
        self._meter.add_instance_seconds(seconds)
        self._meter.instance_ids.append(handle.id)
        _, seconds = await self._meter.timed(handle.start())
        self._meter.add_instance_seconds(seconds)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Finish: as complete, or as what the exception makes of it."""
        _, seconds = await self._meter.timed(self._request.__aexit__(exc_type, exc, traceback))
        self._meter.add_instance_seconds(seconds)


class MeasuredSpan:
    """A span whose telemetry is measured.

    Args:
        meter: What counts.
        handle: The instance that it belongs to.
        schema_name: Its type.
        payload: What goes in.
    """

    def __init__(
        self, meter: Meter, handle: AgentInstanceHandle, schema_name: str, payload: dict[str, Any]
    ) -> None:
        self._meter = meter
        self._instance_id = handle.id
        self._scope = handle.span(schema_name, payload=payload)
        self._context: SpanContext | None = None
        self._result: dict[str, Any] = {}

    def set_result(self, result: dict[str, Any]) -> None:
        """Say what came out. Call it once, before the span is left."""
        self._result = result

    async def __aenter__(self) -> Self:
        """Open and start it."""
        context, entering = await self._meter.timed(self._scope.__aenter__())
        self._context = context
        _, starting = await self._meter.timed(context.start())
        self._meter.instance_of[context.id] = self._instance_id
        self._meter.add_span_seconds(context.id, entering + starting)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it: as complete with its result, or as what the exception makes of it."""
        context = self._context
        if context is None:
            return
        completing = 0.0
        if exc_type is None:
            _, completing = await self._meter.timed(context.complete(self._result))
        _, leaving = await self._meter.timed(self._scope.__aexit__(exc_type, exc, traceback))
        self._meter.add_span_seconds(context.id, completing + leaving)
