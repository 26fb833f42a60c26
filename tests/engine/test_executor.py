"""The executor: the published signature and behaviour, its books, and its ends."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from prefactor_core.exceptions import PrefactorTelemetryFailureError, QueueClosedError
from prefactor_core.execution.dependents import Dependents
from prefactor_core.execution.handler import BatchLimits
from prefactor_core.execution.outcome import NOT_REACHED, SETTLED, Dead, Retry
from prefactor_core.queue.base import DeadLetter, Delivery, Queue
from prefactor_core.queue.executor import TaskExecutor
from prefactor_core.queue.memory import InMemoryQueue
from tests.engine.setups import SINGLE, Batches, check_account, items, lane_of, put_all, started
from tests.engine.virtual import each, virtual
from tests.support.bench import now
from tests.support.operations import create, life, quality, register


def over() -> PrefactorTelemetryFailureError:
    return PrefactorTelemetryFailureError("over", cause=OSError())


def lanes_of(found: Sequence[str]) -> list[list[str]]:
    return [[item for item in found if item[0] == lane] for lane in "abc"]


# -- as published


@virtual
async def test_the_published_example() -> None:
    seen: list[str] = []

    async def handler(item: str) -> None:
        seen.append(item)

    queue: InMemoryQueue[str] = InMemoryQueue()
    executor = TaskExecutor(queue, handler, num_workers=3)
    executor.start()
    await queue.put("item1")
    await queue.put("item2")
    assert await executor.stop()
    assert seen == ["item1", "item2"]
    assert executor.account.settled == 2


@each("max_retries", [0, 1, 3, 7])
async def test_attempts_are_retries_and_one(max_retries: int) -> None:
    attempts: list[float] = []

    async def handler(_: str) -> None:
        attempts.append(now())
        raise ValueError("broken")

    queue, executor = await started(handler, "a", 3, max_retries=max_retries)
    assert await executor.stop()
    assert len(attempts) == max_retries + 1
    (dead,) = queue.dead_letters()
    assert dead.attempts == max_retries + 1
    assert "ValueError: broken" in dead.reason
    for number, (earlier, later) in enumerate(itertools.pairwise(attempts)):
        assert later - earlier <= 2.0**number


@virtual
async def test_what_is_not_retryable_is_given_up_at_once() -> None:
    attempts: Counter[str] = Counter()

    async def handler(item: str) -> None:
        attempts[item] += 1
        raise ValueError if item == "a" else KeyError

    def retryable(error: BaseException) -> bool:
        return isinstance(error, KeyError)

    _, executor = await started(handler, "ab", 3, max_retries=2, is_retryable=retryable, retry_delay_base=0.5)
    await executor.stop()
    assert attempts == {"a": 1, "b": 3}


@virtual
async def test_items_without_a_key_run_in_parallel_up_to_the_workers() -> None:
    under_way = most = 0

    async def handler(_: int) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(1)
        under_way -= 1

    began = now()
    _, executor = await started(handler, range(8), 4)
    await executor.stop()
    assert most == 4
    assert now() - began == pytest.approx(2)


@virtual
async def test_items_of_a_key_run_in_order_one_by_one_through_failures() -> None:
    done: list[str] = []
    under_way: set[str] = set()
    failed: set[str] = set()

    async def handler(item: str) -> None:
        assert item[0] not in under_way
        under_way.add(item[0])
        await asyncio.sleep(0.1)
        under_way.remove(item[0])
        if item not in failed:
            failed.add(item)
            raise OSError
        done.append(item)

    put = [f"{lane}{number}" for number in range(5) for lane in "abc"]
    _, executor = await started(handler, put, 3, key=lane_of)
    await executor.stop()
    assert lanes_of(done) == lanes_of(put)


@virtual
async def test_any_item_can_be_carried_out_whatever_its_size_attribute() -> None:
    """Items are the caller's own: their ``size`` need not be ours."""

    class Shirt:
        def __init__(self, size: object) -> None:
            self.size = size

    handled: list[Shirt] = []

    async def handler(item: Shirt) -> None:
        handled.append(item)
        await asyncio.sleep(0.1)

    for size in (0, "large", None, -5, (3, 4)):
        handled.clear()
        shirts = [Shirt(size) for _ in range(5)]
        batches = Batches(takes=1)
        for one in (handler, batches):
            _, executor = await started(one, shirts, 3)
            async with asyncio.timeout(60):
                await executor.stop(30)
            assert executor.account.settled == 5, (size, one)
        for found in (handled, batches.handled):
            assert sorted(map(id, found)) == sorted(map(id, shirts)), size


# -- queues of other people


class FiveMethods(Queue[Any]):
    """A queue with no more than the published interface, closed by sentinels as the reference's."""

    def __init__(self, error: Exception | None = None) -> None:
        self.items: asyncio.Queue[Any] = asyncio.Queue()
        self.waiting = 0
        self.told: list[int] = []
        self.blocked_at_close: list[int] = []
        self._error = error
        self._closed = False

    async def put(self, item: Any) -> None:
        if self._closed:
            raise QueueClosedError
        self.items.put_nowait(item)

    async def get(self) -> Any:
        if self._error is not None:
            raise self._error
        was_empty = self.items.empty()
        if self._closed and was_empty:
            raise QueueClosedError
        self.waiting += was_empty
        try:
            item = await self.items.get()
        finally:
            self.waiting -= was_empty
        if item is None:
            raise QueueClosedError
        return item

    def size(self) -> int:
        return self.items.qsize()

    async def close(self, num_waiters: int = 1) -> None:
        self.told.append(num_waiters)
        self.blocked_at_close.append(self.waiting)
        self._closed = True
        for _ in range(num_waiters):
            self.items.put_nowait(None)

    @property
    def closed(self) -> bool:
        return self._closed


@virtual
async def test_a_queue_with_five_methods_is_enough() -> None:
    for puts, pause in itertools.product([0, 1, 7], [0, 1]):
        queue = FiveMethods()
        done: list[int] = []

        async def handler(item: int, done: list[int] = done) -> None:
            await asyncio.sleep(0.5)
            done.append(item)

        executor = TaskExecutor(queue, handler, num_workers=2)
        executor.start()
        await put_all(queue, range(1, puts + 1))
        await asyncio.sleep(pause)
        assert await executor.stop(), (puts, pause)
        assert sorted(done) == list(range(1, puts + 1))
        assert queue.told == queue.blocked_at_close, (puts, pause)
        assert queue.size() == 0, (puts, pause)


@virtual
async def test_a_queue_that_fails_for_ever_does_not_keep_a_stop() -> None:
    executor = TaskExecutor(FiveMethods(OSError("broken")), Batches())
    executor.start()
    await asyncio.sleep(300)
    began = now()
    await executor.stop(5)
    assert now() - began <= 5


class Suspending(InMemoryQueue[Any]):
    """A queue that takes its time to dispose of deliveries, as a broker does."""

    async def settle(self, deliveries: Sequence[Delivery[Any]]) -> Sequence[Delivery[Any]]:
        await asyncio.sleep(1)
        return await super().settle(deliveries)

    async def dead_letter(
        self, all_dead: Sequence[tuple[Delivery[Any], DeadLetter[Any]]]
    ) -> Sequence[Delivery[Any]]:
        await asyncio.sleep(1)
        return await super().dead_letter(all_dead)


@virtual
async def test_what_arrives_while_followers_are_dead_lettered_is_not_forgotten() -> None:
    """The only worker waits for the queue to take dead letters; what is received meanwhile must wake it."""
    queue = Suspending()
    handler = Batches([Dead("refused")])
    executor = TaskExecutor(queue, handler, num_workers=1, dependents=Dependents())
    executor.start()
    await queue.put(register("a"))
    await asyncio.sleep(0.5)
    await queue.put(create("a", "a-1"))  # to be dead_lettered: 1.01 s to 2.01 s
    await asyncio.sleep(1)
    await queue.put(quality("b", 1))
    await asyncio.sleep(20)
    assert executor.prefetched == 0
    assert handler.batches[-1] == [quality("b", 1)]
    await executor.stop(5)


@virtual
async def test_a_key_that_cannot_be_found_does_not_end_the_receiving() -> None:
    """``key`` is the caller's own function; whatever it raises, the other items are carried out."""

    def key(item: str) -> str:
        if item == "odd":
            raise ValueError
        return item

    handler = Batches()
    queue, executor = await started(handler, ("a", "odd", "b"), key=key)
    await asyncio.sleep(10)
    await queue.put("c")
    await asyncio.sleep(10)
    await executor.stop(5)
    assert {"a", "b", "c"} <= set(handler.handled)


# -- handlers


@virtual
async def test_a_handler_that_raises_counts_against_all_alike() -> None:
    handler = Batches(OSError("x"), OSError("y"))
    _, executor = await started(handler, ("a1", "a2", "b1"), key=lane_of)
    assert await executor.stop()
    assert executor.account.settled == 3
    assert executor.account.retried >= 4


@virtual
async def test_a_handler_that_answers_the_wrong_number_loses_nothing() -> None:
    for number in (0, 1, 4):
        handler = Batches([SETTLED] * number)
        queue, executor = await started(handler, ("a1", "a2", "b1"), key=lane_of)
        assert await executor.stop(), number
        assert executor.account.settled == queue.settled == 3, number
        assert len(handler.batches) > 1, number


@virtual
async def test_what_was_not_reached_and_what_is_dead_in_one_lane() -> None:
    handler = Batches([SETTLED, Dead("no"), NOT_REACHED, SETTLED, Retry("later")])
    _, executor = await started(handler, ("a1", "a2", "a3", "b1", "b2"), key=lane_of)
    assert await executor.stop()
    account = executor.account
    assert (account.dead_lettered, account.settled, account.retried) == (1, 4, 1)
    assert handler.batches[1] == ["a3"]
    assert handler.at[1] == pytest.approx(handler.at[0] + 0.01)


@virtual
async def test_a_final_failure_ends_everything_and_gives_everything_back() -> None:
    failure = over()
    failures: list[tuple[PrefactorTelemetryFailureError, int, int]] = []

    async def on_failure(error: PrefactorTelemetryFailureError) -> None:
        failures.append((error, queue.size(), executor.prefetched))

    handler = Batches(failure, limits=BatchLimits(2, 1 << 30, 1), takes=1)
    put = [f"{lane}{number}" for lane in "abc" for number in range(3)]
    queue, executor = await started(handler, put, 2, key=lane_of, on_failure=on_failure)
    await asyncio.sleep(10)
    ((found, left, held),) = failures
    assert found is failure
    assert (left, held) == (9 - executor.account.settled, 0)
    check_account(executor)
    await queue.put("late")
    await asyncio.sleep(10)
    assert len(handler.batches) == 2, "it went on"
    for mine in lanes_of(items(await queue.receive(100, 1 << 30))):
        assert mine == sorted(mine)


@virtual
async def test_a_function_can_end_everything_too() -> None:
    async def handler(_: str) -> None:
        raise over()

    queue, executor = await started(handler, "abcdef", 3)
    await asyncio.sleep(5)
    assert (queue.size(), executor.account.released) == (6, 6)


@virtual
async def test_a_stop_says_so_when_a_final_failure_leaves_work_behind() -> None:
    queue, executor = await started(Batches(over(), takes=1), "a", 3)
    await asyncio.sleep(0.5)
    assert not await executor.stop(10), "one was released"
    assert queue.size() == 1


# -- ends


@virtual
async def test_start_twice_is_refused_and_start_after_stop_drains_the_rest() -> None:
    queue, executor = await started(Batches(takes=5), "a")
    with pytest.raises(RuntimeError):
        executor.start()
    assert not await executor.stop(1)
    assert queue.size() == 1
    executor.start()
    assert await executor.stop()
    assert queue.settled == 1


@virtual
async def test_stop_before_start_closes_the_queue_and_twice_is_harmless() -> None:
    queue: InMemoryQueue[str] = InMemoryQueue()
    executor = TaskExecutor(queue, Batches())
    await executor.stop()
    await executor.stop()
    assert queue.closed
    with pytest.raises(QueueClosedError):
        await queue.put("a")


def test_no_workers_are_refused() -> None:
    with pytest.raises(ValueError, match="num_workers"):
        TaskExecutor(InMemoryQueue[str](), Batches(), 0)


@virtual
async def test_a_stop_that_is_cancelled_can_be_called_again() -> None:
    queue, executor = await started(Batches(limits=SINGLE, takes=10), "abc")
    await asyncio.sleep(1)
    stopping = asyncio.create_task(executor.stop())
    await asyncio.sleep(1)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    check_account(executor)
    assert await executor.stop()
    assert queue.settled == 3


@virtual
async def test_two_stops_at_once() -> None:
    queue, executor = await started(Batches(takes=5), "a", 3)
    await asyncio.gather(executor.stop(), executor.stop())
    assert queue.settled == 1
    check_account(executor)


@virtual
async def test_an_idle_executor_does_nothing_at_all() -> None:
    handler = Batches()
    _, executor = await started(handler, (), 3, linger=0.01)
    assert not asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    await asyncio.sleep(3600)
    assert handler.batches == []
    assert await executor.stop()


@virtual
async def test_a_lane_that_waits_does_not_make_the_others_spin() -> None:
    handler = Batches([Retry("later", weight=0, retry_after=500)])
    queue, executor = await started(handler, "a", 5, linger=0.01, key=lane_of)
    await asyncio.sleep(400)
    await queue.put("b")
    await asyncio.sleep(1)
    assert handler.batches == [["a"], ["b"]]
    assert await executor.stop()
    assert handler.batches == [["a"], ["b"], ["a"]]


@virtual
async def test_what_lingers_is_sent_together() -> None:
    handler = Batches()
    queue, executor = await started(handler, (), 3, linger=0.05)
    for item in "abcde":
        await queue.put(item)
        await asyncio.sleep(0.005)
    await asyncio.sleep(1)
    assert len(handler.batches) == 1
    await executor.stop()


@virtual
async def test_an_instance_in_trouble_does_not_fill_the_window() -> None:
    """Promise: nobody is held up for longer than the bounded attempts take, 30 s."""

    async def handler(operation: Any) -> None:
        if operation.instance_id == "a":
            raise OSError("always")

    troubled = [quality("a", number) for number in range(10_100)]
    _, executor = await started(handler, [*troubled, *life("b")], 3)
    await asyncio.sleep(30)
    settled = executor.account.settled
    await executor.stop(0.1)
    assert settled == 5
