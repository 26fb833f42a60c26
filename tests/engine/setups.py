"""What engine tests set up: deliveries and their owners, handlers that are told what to answer, executors."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from prefactor_core.broker.consumer import Consumer
from prefactor_core.broker.envelope import Envelope, encode
from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.execution.handler import BatchLimits
from prefactor_core.execution.outcome import NOT_REACHED, SETTLED, Dead, Outcome
from prefactor_core.execution.retry import RetryPolicy
from prefactor_core.operations import Operation
from prefactor_core.queue.base import Delivery, Queue
from prefactor_core.queue.executor import TaskExecutor
from prefactor_core.queue.intake import BufferBounds, BufferPolicy
from prefactor_core.queue.memory import InMemoryQueue
from tests.support.bench import Bench, make_bench, now, running
from tests.support.fake_api import FakeApi
from tests.support.fake_broker import FakeBroker
from tests.support.operations import dice, key_of, quality

WIDE = BatchLimits(1000, 1 << 40, 1000)
SINGLE = BatchLimits(1, 1 << 30, 1)
KILLED = "its workers crashed each time they handled it"


class Switch:
    """Owns deliveries until it is told that it does not."""

    def __init__(self) -> None:
        self.current = True


def owned(item: Any, owner: Switch) -> Delivery[Any]:
    delivery: Delivery[Any] = Delivery(item)
    delivery.owner = owner
    return delivery


def lane_of(item: Any) -> str | None:
    """Return the instance of an operation, and the first letter of anything else."""
    return item.instance_id if isinstance(item, Operation) else str(item)[0]


def check_account(executor: TaskExecutor) -> None:
    account = executor.account
    ended = account.settled + account.superseded + account.dead_lettered + account.released
    assert account.received == ended + executor.prefetched


def check_all_done(bench: Bench) -> None:
    """Everything that was put has taken effect, once and in order."""
    assert bench.problems() == []
    assert bench.dead == {}


async def carried_out(
    api: FakeApi, *lives: Sequence[Operation], within: float = 600.0, **settings: Any
) -> Bench:
    """Put operations for a sender of their own, and wait until it has done with each."""
    bench = make_bench(api, **settings)
    async with running(bench):
        await bench.put_all(*lives)
        await bench.settle(within)
    return bench


class Batches:
    """A batch handler that takes its time, and is told what to answer.

    Each of ``answers`` is for one batch: an outcome for all of it (a dead letter ends it), a list of
    outcomes, or an exception. When none is left, everything is settled.
    """

    def __init__(self, *answers: Any, limits: BatchLimits = WIDE, takes: float = 0.01) -> None:
        self.limits = limits
        self.takes = takes
        self.answers = deque(answers)
        self.batches: list[list[Any]] = []
        self.at: list[float] = []
        self.executor: TaskExecutor | None = None
        """Whose account is held to be right around each batch."""

    async def handle(self, deliveries: Sequence[Delivery[Any]]) -> Sequence[Outcome]:
        self.batches.append([delivery.item for delivery in deliveries])
        self.at.append(now())
        self._check()
        await asyncio.sleep(self.takes)
        self._check()
        answer = self.answers.popleft() if self.answers else SETTLED
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, Dead):
            return [answer, *[NOT_REACHED] * (len(deliveries) - 1)]
        return answer if isinstance(answer, list) else [answer] * len(deliveries)

    @property
    def handled(self) -> list[Any]:
        return [item for batch in self.batches for item in batch]

    def _check(self) -> None:
        if self.executor is not None:
            check_account(self.executor)


async def put_all(queue: Queue[Any], items: Iterable[Any]) -> None:
    for item in items:
        await queue.put(item)


async def started(
    handler: Any, items: Iterable[Any] = (), num_workers: int = 1, **more: Any
) -> tuple[InMemoryQueue[Any], TaskExecutor]:
    """Start an executor on a queue in memory with some items."""
    queue: InMemoryQueue[Any] = InMemoryQueue()
    executor = TaskExecutor(queue, handler, num_workers, **more)
    if isinstance(handler, Batches):
        handler.executor = executor
    executor.start()
    await put_all(queue, items)
    return queue, executor


def message(operation: Operation, sequence: int = 1) -> bytes:
    return encode(Envelope(f"id-{operation.idempotency_key}", sequence, operation))


def fill(broker: FakeBroker, partition: int, count: int, first: int = 0) -> None:
    """Have qualities of the instance ``p<partition>`` arrive."""
    name = f"p{partition}"
    numbers = range(first, first + count)
    broker.put(partition, *(message(quality(name, number), number + 1) for number in numbers))


def filled(*counts: int, **settings: Any) -> FakeBroker:
    """Return a broker with so many qualities in each of its partitions."""
    broker = FakeBroker(len(counts), **settings)
    for partition, count in enumerate(counts):
        fill(broker, partition, count)
    return broker


def items(deliveries: Iterable[Delivery[Any]]) -> list[Any]:
    return [delivery.item for delivery in deliveries]


def keys(deliveries: Iterable[Delivery[Operation]]) -> list[str]:
    return [key_of(delivery.item) for delivery in deliveries]


async def receive(
    source: Consumer | BrokerQueue, count: int, within: float = 60.0
) -> list[Delivery[Operation]]:
    """Receive so many deliveries."""
    found: list[Delivery[Operation]] = []
    async with asyncio.timeout(within):
        while len(found) < count:
            found += await source.receive(count - len(found), 1 << 40)
    return found


def queue_on(broker: FakeBroker, *, seed: int = 1, policy: BufferPolicy = "drop") -> BrokerQueue:
    return BrokerQueue(broker, BufferBounds(100, 1 << 20, policy), rng=dice(seed))


def retry_of(seed: int = 1) -> RetryPolicy:
    return RetryPolicy(base=0.5, cap=5.0, rng=dice(seed))


async def handle_soon(_: Operation) -> None:
    await asyncio.sleep(0.05)


@asynccontextmanager
async def working(
    broker: FakeBroker, handler: Any = handle_soon, num_workers: int = 8
) -> AsyncIterator[tuple[BrokerQueue, TaskExecutor]]:
    """Have an executor work on a broker; in the end it is stopped."""
    queue = queue_on(broker)
    executor = TaskExecutor(queue, handler, num_workers, retry=retry_of())
    executor.start()
    yield queue, executor
    await executor.stop(10)
    await queue.disconnect()
