"""A whole sender on the fake API, in virtual time, with its queue and its books."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from prefactor_core.api.circuit_breaker import CircuitBreaker
from prefactor_core.api.delivery import ApiDelivery
from prefactor_core.exceptions import PrefactorTelemetryFailureError
from prefactor_core.execution.dependents import Dependents
from prefactor_core.execution.retry import RetryPolicy
from prefactor_core.operations import Operation
from prefactor_core.queue.base import DeadLetter, Delivery
from prefactor_core.queue.executor import TaskExecutor
from prefactor_core.queue.memory import InMemoryQueue
from tests.support.fake_api import FakeApi
from tests.support.operations import dice, key_of


@dataclass(slots=True)
class Bench:
    api: FakeApi
    queue: InMemoryQueue[Operation]
    breaker: CircuitBreaker
    delivery: ApiDelivery
    executor: TaskExecutor
    put_so_far: list[Operation] = field(default_factory=list)
    failures: list[PrefactorTelemetryFailureError] = field(default_factory=list)

    async def put(self, *operations: Operation) -> None:
        for operation in operations:
            self.put_so_far.append(operation)
            await self.queue.put(operation)

    async def waiting(self) -> list[Delivery[Operation]]:
        """What waits in the queue, to be marked as a queue would that hands it out again."""
        waiting = await self.queue.receive(1 << 30, 1 << 40)
        await self.queue.release(waiting)
        return waiting

    async def put_all(self, *lives: Sequence[Operation]) -> None:
        for life in lives:
            await self.put(*life)

    async def settle(self, within: float = 600.0) -> None:
        """Wait until everything is settled or dead-lettered, and see that the books are right."""
        assert await self.queue.flush(within), (
            f"after {within} s {self.queue.unsettled} are unsettled; {len(self.api.requests)} requests, "
            f"the last {self.api.requests[-3:]}"
        )
        self.check_books()

    def check_books(self) -> None:
        account = self.executor.account
        assert account.received == (
            account.settled
            + account.superseded
            + account.dead_lettered
            + account.released
            + self.executor.prefetched
        )
        queue = self.queue
        assert queue.put_count == (
            queue.settled + queue.dead_lettered + queue.dropped.total() + queue.discarded + queue.unsettled
        )

    @property
    def dead(self) -> dict[str, DeadLetter[Operation]]:
        return {key_of(dead.item): dead for dead in self.queue.dead_letters()}

    def problems(self) -> list[str]:
        """Compare what happened with what was put."""
        return problems(self.put_so_far, self.api, set(self.dead))


def problems(put: Sequence[Operation], api: FakeApi, dead: set[str]) -> list[str]:
    """What is lost, doubled, out of order, changed on its way, or invented."""
    found: list[str] = []
    done = Counter(api.done())
    found += [f"doubled: {key}" for key, count in done.items() if count > 1]
    known = {key_of(operation) for operation in put}
    found += [f"lost: {key}" for key in known if key not in done and key not in dead]
    found += [f"invented: {key}" for key in done if key not in known]
    found += [f"changed: {key}" for key, sendings in api.sendings.items() if len(set(sendings)) > 1]
    found += [f"two requests at once: {instance}" for instance in api.overlaps]
    orders: dict[str | None, list[str]] = {}
    for operation in put:
        orders.setdefault(operation.instance_id, []).append(key_of(operation))
    positions = {key: index for order in orders.values() for index, key in enumerate(order)}
    last: dict[str, int] = {}
    for effect in api.effects:
        position = positions.get(effect.key, -1)
        if position < last.get(effect.instance, -1):
            found.append(f"out of order: {effect.key}")
        last[effect.instance] = position
    return found


def make_bench(
    api: FakeApi | None = None,
    *,
    latch: bool = True,
    num_workers: int = 3,
    max_retries: int = 3,
    seed: int = 1,
    queue: InMemoryQueue[Operation] | None = None,
) -> Bench:
    api = api or FakeApi()
    retry = RetryPolicy(max_retries=max_retries, rng=dice(seed))
    queue = queue if queue is not None else InMemoryQueue()
    breaker = CircuitBreaker(api.ping, retry, latch=latch)
    delivery = ApiDelivery(api, breaker, (429, 500, 502, 503, 504))
    failures: list[PrefactorTelemetryFailureError] = []

    async def on_failure(failure: PrefactorTelemetryFailureError) -> None:
        failures.append(failure)

    executor = TaskExecutor(
        queue,
        delivery,
        num_workers,
        retry=retry,
        dependents=Dependents(),
        linger=0.01,
        on_failure=on_failure,
    )
    return Bench(api, queue, breaker, delivery, executor, failures=failures)


@asynccontextmanager
async def running(bench: Bench, stop_within: float = 600.0) -> AsyncIterator[Bench]:
    bench.executor.start()
    try:
        yield bench
    finally:
        await bench.executor.stop(stop_within)
        bench.check_books()


def now() -> float:
    return asyncio.get_running_loop().time()
