"""The executor: the published signature and behaviour, its books, and its ends."""

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import pytest

from prefactor_core.exceptions import PrefactorTelemetryFailureError, QueueClosedError
from prefactor_core.execution.dependents import Dependents
from prefactor_core.execution.handler import BatchLimits
from prefactor_core.execution.outcome import NOT_REACHED, SETTLED, Dead, Outcome, Retry
from prefactor_core.queue.base import DeadLetter, Delivery, Queue
from prefactor_core.queue.executor import TaskExecutor
from prefactor_core.queue.memory import InMemoryQueue
from tests.support.bench import now
from tests.support.operations import create, life, quality, register
from tests.support.virtual_time import run_virtual


def by_letter(item: Any) -> str:
    return str(item)[0]


def balanced(executor: TaskExecutor) -> bool:
    account = executor.account
    return account.received == (account.settled + account.dead_lettered + account.released + executor.held)


class Batches:
    """A batch handler that is told what to answer."""

    def __init__(self, *answers: Any, limits: BatchLimits | None = None, takes: float = 0.01) -> None:
        self._limits = limits or BatchLimits(100, 1 << 30, 100)
        self.answers = deque(answers)
        self.batches: list[list[Any]] = []
        self.at: list[float] = []
        self.takes = takes
        self.executor: TaskExecutor | None = None

    @property
    def limits(self) -> BatchLimits:
        return self._limits

    async def handle(self, deliveries: Sequence[Delivery[Any]]) -> Sequence[Outcome]:
        self.batches.append([delivery.item for delivery in deliveries])
        self.at.append(now())
        assert self.executor is None or balanced(self.executor)
        await asyncio.sleep(self.takes)
        assert self.executor is None or balanced(self.executor)
        answer = self.answers.popleft() if self.answers else SETTLED
        if isinstance(answer, BaseException):
            raise answer
        return answer if isinstance(answer, list) else [answer] * len(deliveries)


# -- as published


def test_the_published_example() -> None:
    async def program() -> None:
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

    run_virtual(program())


@pytest.mark.parametrize("max_retries", [0, 1, 3, 7])
def test_attempts_are_retries_and_one(max_retries: int) -> None:
    async def program() -> None:
        attempts: list[float] = []

        async def handler(_: str) -> None:
            attempts.append(now())
            raise ValueError("broken")

        queue: InMemoryQueue[str] = InMemoryQueue()
        executor = TaskExecutor(queue, handler, 3, max_retries)
        executor.start()
        await queue.put("a")
        assert await executor.stop()
        assert len(attempts) == max_retries + 1
        (letter,) = queue.dead_letters()
        assert letter.attempts == max_retries + 1
        assert "ValueError: broken" in letter.reason
        for number, (earlier, later) in enumerate(itertools.pairwise(attempts)):
            assert later - earlier <= 2.0**number

    run_virtual(program())


def test_what_is_not_retryable_is_given_up_at_once() -> None:
    async def program() -> None:
        attempts: Counter[str] = Counter()

        async def handler(item: str) -> None:
            attempts[item] += 1
            raise ValueError if item == "a" else KeyError

        queue: InMemoryQueue[str] = InMemoryQueue()
        executor = TaskExecutor(
            queue, handler, 3, 2, is_retryable=lambda error: isinstance(error, KeyError), retry_delay_base=0.5
        )
        executor.start()
        await queue.put("a")
        await queue.put("b")
        await executor.stop()
        assert attempts == {"a": 1, "b": 3}

    run_virtual(program())


def test_items_without_a_key_run_in_parallel_up_to_the_workers() -> None:
    async def program() -> None:
        under_way = most = 0

        async def handler(_: int) -> None:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(1)
            under_way -= 1

        queue: InMemoryQueue[int] = InMemoryQueue()
        executor = TaskExecutor(queue, handler, num_workers=4)
        executor.start()
        began = now()
        for number in range(8):
            await queue.put(number)
        await executor.stop()
        assert most == 4
        assert now() - began == pytest.approx(2)

    run_virtual(program())


def test_items_of_a_key_run_in_order_one_by_one_through_failures() -> None:
    async def program() -> None:
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

        queue: InMemoryQueue[str] = InMemoryQueue()
        executor = TaskExecutor(queue, handler, 3, key=by_letter)
        executor.start()
        items = [f"{lane}{number}" for number in range(5) for lane in "abc"]
        for item in items:
            await queue.put(item)
        await executor.stop()
        for lane in "abc":
            assert [item for item in done if item[0] == lane] == [item for item in items if item[0] == lane]

    run_virtual(program())


@pytest.mark.parametrize("size", [0, "large", None, -5, (3, 4)])
def test_any_item_can_be_carried_out_whatever_its_size_attribute(size: object) -> None:
    """Items are the caller's own: their ``size`` need not be ours."""

    class Shirt:
        def __init__(self) -> None:
            self.size = size

    async def program() -> None:
        handled: list[Shirt] = []

        async def handler(item: Shirt) -> None:
            handled.append(item)
            await asyncio.sleep(0.1)

        queue: InMemoryQueue[Shirt] = InMemoryQueue()
        executor = TaskExecutor(queue, handler, num_workers=3)
        executor.start()
        shirts = [Shirt() for _ in range(5)]
        for shirt in shirts:
            await queue.put(shirt)
        async with asyncio.timeout(60):
            await executor.stop(30)
        assert sorted(map(id, handled)) == sorted(map(id, shirts))
        assert executor.account.settled == 5

    run_virtual(program())


def test_items_of_size_zero_are_handled_once_in_company_too() -> None:
    class Empty:
        size = 0

    async def program() -> None:
        handler = Batches(takes=1)
        queue: InMemoryQueue[Empty] = InMemoryQueue()
        executor = TaskExecutor(queue, handler, num_workers=3)
        executor.start()
        for _ in range(5):
            await queue.put(Empty())
        await executor.stop(30)
        assert sum(len(batch) for batch in handler.batches) == 5
        assert executor.account.settled == 5

    run_virtual(program())


# -- queues of other people


class FiveMethods(Queue[Any]):
    """A queue with no more than the published interface, closed by sentinels as the reference's."""

    def __init__(self) -> None:
        self.items: asyncio.Queue[Any] = asyncio.Queue()
        self.waiting = 0
        self.told: list[int] = []
        self.blocked_at_close: list[int] = []
        self.errors: deque[Exception] = deque()
        self._closed = False

    async def put(self, item: Any) -> None:
        if self._closed:
            raise QueueClosedError
        self.items.put_nowait(item)

    async def get(self) -> Any:
        if self.errors:
            raise self.errors.popleft()
        if self._closed and self.items.empty():
            raise QueueClosedError
        self.waiting += self.items.empty()
        was_empty = self.items.empty()
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


@pytest.mark.parametrize("puts", [0, 1, 7])
@pytest.mark.parametrize("pause", [0, 1])
def test_a_queue_with_five_methods_is_enough(puts: int, pause: float) -> None:
    async def program() -> None:
        queue = FiveMethods()
        done: list[int] = []

        async def handler(item: int) -> None:
            await asyncio.sleep(0.5)
            done.append(item)

        executor = TaskExecutor(queue, handler, num_workers=2)
        executor.start()
        for number in range(1, puts + 1):
            await queue.put(number)
        await asyncio.sleep(pause)
        assert await executor.stop()
        assert sorted(done) == list(range(1, puts + 1))
        assert queue.told == queue.blocked_at_close
        assert queue.size() == 0

    run_virtual(program())


def test_a_queue_whose_get_raises_is_asked_again_later() -> None:
    async def program() -> None:
        queue = FiveMethods()
        queue.errors.extend([OSError("broken")] * 3)
        handler = Batches()
        executor = TaskExecutor(queue, handler)
        executor.start()
        await queue.put("a")
        await asyncio.sleep(60)
        assert handler.batches == [["a"]]
        assert await executor.stop()

    run_virtual(program())


def test_a_queue_that_fails_for_ever_does_not_keep_a_stop() -> None:
    class Broken(FiveMethods):
        async def get(self) -> Any:
            raise OSError("broken")

    async def program() -> None:
        executor = TaskExecutor(Broken(), Batches())
        executor.start()
        await asyncio.sleep(300)
        began = now()
        await executor.stop(5)
        assert now() - began <= 5

    run_virtual(program())


class Suspending(InMemoryQueue[Any]):
    """A queue that takes its time to dispose of deliveries, as a broker does."""

    def __init__(self) -> None:
        super().__init__()
        self.lost_dead_letters = 0

    async def settle(self, deliveries: Sequence[Delivery[Any]]) -> Sequence[Delivery[Any]]:
        await asyncio.sleep(1)
        return await super().settle(deliveries)

    async def dead_letter(
        self, letters: Sequence[tuple[Delivery[Any], DeadLetter[Any]]]
    ) -> Sequence[Delivery[Any]]:
        await asyncio.sleep(1)
        if self.lost_dead_letters:
            self.lost_dead_letters -= 1
            raise OSError("the broker is unavailable")
        return await super().dead_letter(letters)


def test_what_arrives_while_followers_are_buried_is_not_forgotten() -> None:
    """The only worker waits for the queue to take dead letters; what is received meanwhile must wake it."""

    async def program() -> None:
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
        assert executor.held == 0
        assert handler.batches[-1] == [quality("b", 1)]
        await executor.stop(5)

    run_virtual(program())


def test_a_queue_that_cannot_take_a_dead_letter_still_hears_what_was_settled() -> None:
    async def program() -> None:
        queue = Suspending()
        queue.lost_dead_letters = 1
        handler = Batches([SETTLED, Dead("refused"), SETTLED])
        executor = TaskExecutor(queue, handler, num_workers=1, key=by_letter)
        for item in ("a1", "b1", "c1"):
            await queue.put(item)
        executor.start()
        await asyncio.sleep(20)
        assert queue.settled == 2
        await executor.stop(5)

    run_virtual(program())


def test_a_key_that_cannot_be_found_does_not_end_the_receiving() -> None:
    """``key`` is the caller's own function; whatever it raises, the other items are carried out."""

    def key(item: str) -> str:
        if item == "odd":
            raise ValueError
        return item

    async def program() -> None:
        handler = Batches()
        queue: InMemoryQueue[str] = InMemoryQueue()
        executor = TaskExecutor(queue, handler, key=key)
        executor.start()
        for item in ("a", "odd", "b"):
            await queue.put(item)
        await asyncio.sleep(10)
        await queue.put("c")
        await asyncio.sleep(10)
        handled = {item for batch in handler.batches for item in batch}
        await executor.stop(5)
        assert {"a", "b", "c"} <= handled

    run_virtual(program())


# -- handlers


def test_a_handler_that_raises_counts_against_all_alike() -> None:
    async def program() -> None:
        handler = Batches(OSError("x"), OSError("y"))
        queue: InMemoryQueue[str] = InMemoryQueue()
        executor = TaskExecutor(queue, handler, num_workers=1, key=by_letter)
        handler.executor = executor
        for item in ("a1", "a2", "b1"):
            await queue.put(item)
        executor.start()
        assert await executor.stop()
        assert executor.account.settled == 3
        assert executor.account.retried >= 4

    run_virtual(program())


@pytest.mark.parametrize("answer", [[], [SETTLED], [SETTLED] * 4])
def test_a_handler_that_answers_the_wrong_number_loses_nothing(answer: list[Outcome]) -> None:
    async def program() -> None:
        handler = Batches(answer)
        queue: InMemoryQueue[str] = InMemoryQueue()
        executor = TaskExecutor(queue, handler, num_workers=1, key=by_letter)
        handler.executor = executor
        for item in ("a1", "a2", "b1"):
            await queue.put(item)
        executor.start()
        assert await executor.stop()
        assert executor.account.settled == queue.settled == 3
        assert len(handler.batches) > 1

    run_virtual(program())


def test_what_was_not_reached_and_what_is_dead_in_one_lane() -> None:
    async def program() -> None:
        handler = Batches([SETTLED, Dead("no"), NOT_REACHED, SETTLED, Retry("later")])
        queue: InMemoryQueue[str] = InMemoryQueue()
        executor = TaskExecutor(queue, handler, num_workers=1, key=by_letter)
        handler.executor = executor
        for item in ("a1", "a2", "a3", "b1", "b2"):
            await queue.put(item)
        executor.start()
        assert await executor.stop()
        assert executor.account.dead_lettered == 1
        assert executor.account.settled == 4
        assert executor.account.retried == 1
        assert handler.batches[1] == ["a3"]
        assert handler.at[1] == pytest.approx(handler.at[0] + 0.01)

    run_virtual(program())


def test_a_final_failure_ends_everything_and_gives_everything_back() -> None:
    async def program() -> None:
        failure = PrefactorTelemetryFailureError("over", cause=OSError())
        failures: list[tuple[PrefactorTelemetryFailureError, int, int]] = []
        queue: InMemoryQueue[str] = InMemoryQueue()

        async def on_failure(error: PrefactorTelemetryFailureError) -> None:
            failures.append((error, queue.size(), executor.held))

        handler = Batches(failure, limits=BatchLimits(2, 1 << 30, 1), takes=1)
        executor = TaskExecutor(queue, handler, num_workers=2, key=by_letter, on_failure=on_failure)
        handler.executor = executor
        executor.start()
        items = [f"{lane}{number}" for lane in "abc" for number in range(3)]
        for item in items:
            await queue.put(item)
        await asyncio.sleep(10)
        assert len(failures) == 1
        assert failures[0][0] is failure
        assert failures[0][1:] == (9 - executor.account.settled, 0)
        assert balanced(executor)
        await queue.put("late")
        await asyncio.sleep(10)
        assert len(handler.batches) == 2, "it went on"
        left = [delivery.item for delivery in await queue.receive(100, 1 << 30)]
        for lane in "abc":
            mine = [item for item in left if item[0] == lane]
            assert mine == sorted(mine)

    run_virtual(program())


def test_a_function_can_end_everything_too() -> None:
    async def program() -> None:
        async def handler(_: str) -> None:
            raise PrefactorTelemetryFailureError("over", cause=OSError())

        queue: InMemoryQueue[str] = InMemoryQueue()
        executor = TaskExecutor(queue, handler, num_workers=3)
        executor.start()
        for item in "abcdef":
            await queue.put(item)
        await asyncio.sleep(5)
        assert queue.size() == 6
        assert executor.account.released == 6

    run_virtual(program())


def test_a_stop_says_so_when_a_final_failure_leaves_work_behind() -> None:
    async def program() -> None:
        handler = Batches(PrefactorTelemetryFailureError("over", cause=OSError()), takes=1)
        queue: InMemoryQueue[str] = InMemoryQueue()
        executor = TaskExecutor(queue, handler)
        executor.start()
        await queue.put("a")
        await asyncio.sleep(0.5)
        assert not await executor.stop(10), "one was given back"
        assert queue.size() == 1

    run_virtual(program())


# -- ends


def test_start_twice_is_refused_and_start_after_stop_drains_the_rest() -> None:
    async def program() -> None:
        handler = Batches(takes=5)
        queue: InMemoryQueue[str] = InMemoryQueue()
        executor = TaskExecutor(queue, handler, num_workers=1)
        executor.start()
        with pytest.raises(RuntimeError):
            executor.start()
        await queue.put("a")
        assert not await executor.stop(1)
        assert queue.size() == 1
        executor.start()
        assert await executor.stop()
        assert queue.settled == 1

    run_virtual(program())


def test_stop_before_start_closes_the_queue_and_twice_is_harmless() -> None:
    async def program() -> None:
        queue: InMemoryQueue[str] = InMemoryQueue()
        executor = TaskExecutor(queue, Batches())
        await executor.stop()
        await executor.stop()
        assert queue.closed
        with pytest.raises(QueueClosedError):
            await queue.put("a")

    run_virtual(program())


def test_no_workers_are_refused() -> None:
    with pytest.raises(ValueError, match="num_workers"):
        TaskExecutor(InMemoryQueue[str](), Batches(), 0)


def test_a_stop_in_time_gives_back_in_order_what_is_left() -> None:
    async def program() -> None:
        handler = Batches(limits=BatchLimits(1, 1 << 30, 1), takes=10)
        queue: InMemoryQueue[str] = InMemoryQueue()
        executor = TaskExecutor(queue, handler, num_workers=2, key=by_letter)
        handler.executor = executor
        executor.start()
        for item in ("a1", "b1", "a2", "b2", "c1", "c2"):
            await queue.put(item)
        await asyncio.sleep(12)
        assert not await executor.stop(3)
        assert balanced(executor)
        assert executor.held == 0
        assert executor.account.released == 4
        assert queue.unsettled == 4
        left = [delivery.item for delivery in await queue.receive(10, 1 << 30)]
        for lane in "abc":
            mine = [item for item in left if item[0] == lane]
            assert mine == sorted(mine)

    run_virtual(program())


def test_a_stop_that_is_cancelled_can_be_called_again() -> None:
    async def program() -> None:
        handler = Batches(limits=BatchLimits(1, 1 << 30, 1), takes=10)
        queue: InMemoryQueue[str] = InMemoryQueue()
        executor = TaskExecutor(queue, handler, num_workers=1)
        executor.start()
        for item in "abc":
            await queue.put(item)
        await asyncio.sleep(1)
        stopping = asyncio.create_task(executor.stop())
        await asyncio.sleep(1)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        assert balanced(executor)
        assert await executor.stop()
        assert queue.settled == 3

    run_virtual(program())


def test_two_stops_at_once() -> None:
    async def program() -> None:
        queue: InMemoryQueue[str] = InMemoryQueue()
        executor = TaskExecutor(queue, Batches(takes=5))
        executor.start()
        await queue.put("a")
        await asyncio.gather(executor.stop(), executor.stop())
        assert queue.settled == 1
        assert balanced(executor)

    run_virtual(program())


def test_abandon_gives_back_what_is_under_way() -> None:
    async def program() -> None:
        queue: InMemoryQueue[str] = InMemoryQueue()
        executor = TaskExecutor(queue, Batches(takes=5), num_workers=1)
        executor.start()
        for item in "abc":
            await queue.put(item)
        await asyncio.sleep(1)
        await executor.abandon()
        assert queue.size() == 3
        assert not queue.closed
        assert balanced(executor)

    run_virtual(program())


def test_an_idle_executor_does_nothing_at_all() -> None:
    async def program() -> None:
        handler = Batches()
        executor = TaskExecutor(InMemoryQueue[str](), handler, linger=0.01)
        executor.start()
        loop = asyncio.get_running_loop()
        assert not loop._scheduled  # type: ignore[attr-defined]
        await asyncio.sleep(3600)
        assert handler.batches == []
        assert await executor.stop()

    run_virtual(program())


def test_a_lane_that_waits_does_not_make_the_others_spin() -> None:
    async def program() -> None:
        handler = Batches([Retry("later", weight=0, retry_after=500)])
        queue: InMemoryQueue[str] = InMemoryQueue()
        executor = TaskExecutor(queue, handler, num_workers=5, linger=0.01, key=by_letter)
        executor.start()
        await queue.put("a")
        await asyncio.sleep(400)
        await queue.put("b")
        await asyncio.sleep(1)
        assert handler.batches == [["a"], ["b"]]
        assert await executor.stop()
        assert handler.batches == [["a"], ["b"], ["a"]]

    run_virtual(program())


def test_what_lingers_is_sent_together() -> None:
    async def program() -> None:
        handler = Batches()
        queue: InMemoryQueue[str] = InMemoryQueue()
        executor = TaskExecutor(queue, handler, num_workers=3, linger=0.05)
        executor.start()
        for item in "abcde":
            await queue.put(item)
            await asyncio.sleep(0.005)
        await asyncio.sleep(1)
        assert len(handler.batches) == 1
        await executor.stop()

    run_virtual(program())


def test_an_instance_in_trouble_does_not_fill_the_window() -> None:
    """Promise: nobody is held up for longer than the bounded tries take, 30 s."""

    async def program() -> None:
        async def handler(operation: Any) -> None:
            if operation.instance_id == "a":
                raise OSError("always")

        queue: InMemoryQueue[Any] = InMemoryQueue()
        executor = TaskExecutor(queue, handler)
        executor.start()
        for number in range(10_100):
            await queue.put(quality("a", number))
        for operation in life("b"):
            await queue.put(operation)
        await asyncio.sleep(30)
        settled = executor.account.settled
        await executor.stop(0.1)
        assert settled == 5

    run_virtual(program())
