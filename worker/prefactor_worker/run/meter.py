"""What a worker has done, counted while it does it; ``health`` judges it."""

import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client import Counter as Total

from prefactor_core.accounts import ExecutorAccount
from prefactor_core.api.delivery import Api, ApiDelivery
from prefactor_core.api.replies import Reply
from prefactor_core.execution.handler import BatchLimits, Circuit
from prefactor_core.execution.outcome import Outcome
from prefactor_core.hookspecs import hookimpl
from prefactor_core.operations import Operation
from prefactor_core.queue.base import DeadLetter, Delivery

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_SIZES = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000)


class Meter:
    """Counts what passes, for one worker; the registry shows it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        total, histogram = partial(Total, registry=registry), partial(Histogram, registry=registry)
        self.settled = total(
            "prefactor_operations_settled", "Operations whose effect has happened.", ["type"]
        )
        self.overtaken = total(
            "prefactor_operations_overtaken",
            "Of the settled, those whose effect had happened before, or that the service had closed itself.",
            ["type"],
        )
        self.superseded = total(
            "prefactor_operations_superseded",
            "Operations that are not wanted any more: the service has terminated their instance.",
            ["type"],
        )
        self.retried = total(
            "prefactor_operations_retried",
            "How often operations went back since something went wrong.",
            ["type"],
        )
        self.dead = total(
            "prefactor_operations_dead_lettered", "Operations that were dead-lettered.", ["type"]
        )
        self.requests = total("prefactor_api_requests", "Requests to the API, by HTTP status.", ["status"])
        self.request_seconds = histogram(
            "prefactor_api_request_seconds", "How long the API took.", buckets=_SECONDS
        )
        self.batch_operations = histogram(
            "prefactor_batch_operations", "Operations in one batch.", buckets=_SIZES
        )
        self.delivery_seconds = histogram(
            "prefactor_delivery_seconds",
            "From the call in the agent to the effect at the API.",
            buckets=_SECONDS,
        )
        self.progressed_at = time.monotonic()
        """When something was last done: a reply came, or a delivery was disposed of."""
        self._unread = 0
        self._counted: dict[Total, Counter[str]] = {}

    def progress(self) -> None:
        """Something was done."""
        self.progressed_at = time.monotonic()

    def dead_lettered_unread(self, total: int) -> None:
        """Count what was dead-lettered unread, of which there are ``total`` by now."""
        self.dead.labels("unread").inc(total - self._unread)
        self._unread = total

    def take_over(self, account: ExecutorAccount) -> None:
        """Count what only the executor's account knows, by type, as it is by now."""
        for total, by_type in (
            (self.overtaken, account.overtaken_by_type),
            (self.superseded, account.superseded_by_type),
            (self.retried, account.retried_by_type),
        ):
            for kind, count in (by_type - self._counted.get(total, Counter())).items():
                total.labels(kind).inc(count)
            self._counted[total] = by_type.copy()

    @hookimpl
    def prefactor_disposed(self, settled: Sequence[Operation], dead: Sequence[DeadLetter[Operation]]) -> None:
        """Count what was disposed of."""
        self.progress()
        now = datetime.now(UTC)
        for kind, count in Counter(operation.type.value for operation in settled).items():
            self.settled.labels(kind).inc(count)
        for operation in settled:
            if operation.timestamp.tzinfo is not None:
                self.delivery_seconds.observe(max(0.0, (now - operation.timestamp).total_seconds()))
        for dead_letter in dead:
            self.dead.labels(dead_letter.item.type.value).inc()


class MeteredApi:
    """An HTTP client whose requests are counted."""

    def __init__(self, api: Api, meter: Meter) -> None:
        self._api = api
        self._meter = meter

    async def post(self, path: str, body: bytes, sdk_header: str | None = None) -> Reply:
        """Send a write."""
        began = time.monotonic()
        return self._count(began, await self._api.post(path, body, sdk_header))

    async def get(self, path: str) -> Reply:
        """Read something."""
        began = time.monotonic()
        return self._count(began, await self._api.get(path))

    def _count(self, began: float, reply: Reply) -> Reply:
        self._meter.progress()
        self._meter.request_seconds.observe(time.monotonic() - began)
        self._meter.requests.labels(str(reply.status or "none")).inc()
        return reply


class MeteredDelivery:
    """A delivery whose batches are counted."""

    def __init__(self, delivery: ApiDelivery, meter: Meter) -> None:
        self._delivery = delivery
        self._meter = meter

    @property
    def limits(self) -> BatchLimits:
        """What the next call may be given."""
        return self._delivery.limits

    @property
    def circuit(self) -> Circuit:
        """What the executor waits for before it calls."""
        return self._delivery.circuit

    async def handle(self, deliveries: Sequence[Delivery[Operation]]) -> list[Outcome]:
        """Carry out ``deliveries`` and return what became of each."""
        self._meter.batch_operations.observe(len(deliveries))
        return await self._delivery.handle(deliveries)
