"""The handover: the order of calls, whatever the queue does, and whichever thread they come from."""

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from prefactor_core import ClientClosedError, InMemoryQueue, Operation, OperationType, Queue, QueueClosedError
from prefactor_core.recording.handover import Handover, Wait, handover_to
from tests.support.threads import check_order, in_threads
from tests.unit.samples import AT

_DEADLINE = 120.0


def op(name: str) -> Operation:
    return Operation(OperationType.CREATE_SPAN, {"span_id": name}, AT)


async def put(handover: Handover, *names: str) -> None:
    """Give operations, and wait as their caller does."""
    wait = handover.give([op(name) for name in names])
    if wait is not None:
        await wait


class SuspendingQueue(Queue[Operation]):
    """A queue whose puts finish one at a time, when the test says so, or after some turns of the loop."""

    def __init__(self, turns: dict[str, int] | None = None) -> None:
        self.taken: list[str] = []
        self.gate = asyncio.Semaphore(0)
        self.entered = asyncio.Event()
        self._turns = turns
        self._closed = False

    async def put(self, item: Operation) -> None:
        self.entered.set()
        name = str(item.span_id)
        if self._turns is None:
            await self.gate.acquire()
        else:
            for _ in range(self._turns.get(name, 0)):
                await asyncio.sleep(0)
        if self._closed:
            raise QueueClosedError(name)
        self.taken.append(name)

    async def get(self) -> Operation:
        raise NotImplementedError

    def size(self) -> int:
        return len(self.taken)

    async def close(self, num_waiters: int = 1) -> None:  # noqa: ARG002 -- the interface has it
        self._closed = True

    @property
    def closed(self) -> bool:
        return self._closed


# -- a queue that is put to


async def test_the_order_of_calls_is_kept_where_puts_overtake_each_other() -> None:
    queue = SuspendingQueue({"a": 9, "b": 1, "c": 5, "d": 0, "e": 3})
    handover = handover_to(queue)
    await asyncio.gather(put(handover, "a", "b"), put(handover, "c"), put(handover, "d", "e"))
    assert queue.taken == ["a", "b", "c", "d", "e"]
    assert handover.put_count == 5


async def finish_one_by_one(queue: SuspendingQueue, waiting: asyncio.Task[None]) -> None:
    """Let the first of two puts finish, and then the other, for which ``waiting`` waits."""
    queue.gate.release()
    for _ in range(10):
        await asyncio.sleep(0)
    assert queue.taken == ["a"]
    assert not waiting.done()
    queue.gate.release()
    await waiting
    assert queue.taken == ["a", "b"]


async def test_a_caller_goes_on_when_all_of_its_operations_have_been_put() -> None:
    queue = SuspendingQueue()
    call = asyncio.create_task(put(handover_to(queue), "a", "b"))
    await queue.entered.wait()
    await finish_one_by_one(queue, call)


async def test_a_cancelled_caller_leaves_no_hole() -> None:
    queue = SuspendingQueue()
    handover = handover_to(queue)
    calls = [asyncio.create_task(put(handover, name, name + "'")) for name in "abc"]
    await queue.entered.wait()
    calls[0].cancel()
    calls[1].cancel()
    for _ in range(6):
        queue.gate.release()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["CancelledError", "CancelledError", "NoneType"]
    assert queue.taken == ["a", "a'", "b", "b'", "c", "c'"]


async def test_what_is_given_is_put_though_nobody_waits() -> None:
    queue = SuspendingQueue({})
    handover = handover_to(queue)
    for name in "abc":
        handover.give([op(name)])
    assert queue.taken == [], "its puts may suspend, and this caller does not"
    await handover.drain()
    assert queue.taken == ["a", "b", "c"]
    assert handover.put_count == 3


async def test_drain_waits_for_what_was_given_even_by_cancelled_callers() -> None:
    queue = SuspendingQueue()
    handover = handover_to(queue)
    await handover.drain()
    calls = [asyncio.create_task(put(handover, name)) for name in "ab"]
    await queue.entered.wait()
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await finish_one_by_one(queue, asyncio.create_task(handover.drain()))


async def test_a_put_that_fails_fails_its_own_caller_and_holds_nobody_up() -> None:
    class Choosy(SuspendingQueue):
        async def put(self, item: Operation) -> None:
            await super().put(item)
            if item.span_id in {"a'", "c"}:
                raise ZeroDivisionError(item.span_id)

    queue = Choosy({"a": 3, "b": 0})
    handover = handover_to(queue)
    calls = [put(handover, "a", "a'", 'a"'), put(handover, "b"), put(handover, "c"), put(handover, "d")]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [repr(result) for result in results] == [
        'ZeroDivisionError("a\'")',
        "None",
        "ZeroDivisionError('c')",
        "None",
    ]
    assert queue.taken == ["a", "a'", "b", "c", "d"], "a failed one ends its own call"
    assert handover.put_count == 3
    await handover.drain()


async def test_a_queue_that_is_closed_refuses_every_caller() -> None:
    queue = SuspendingQueue({"a": 3, "b": 0})
    handover = handover_to(queue)
    call = asyncio.create_task(put(handover, "a"))
    await queue.entered.wait()
    later = asyncio.create_task(put(handover, "b"))
    await queue.close()
    results = await asyncio.gather(call, later, return_exceptions=True)
    assert [str(result) for result in results] == ["a", "b"]
    assert all(isinstance(result, QueueClosedError) for result in results)
    assert handover.put_count == 0
    await handover.drain()


async def test_a_put_whose_caller_was_cancelled_fails_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    queue = SuspendingQueue()
    handover = handover_to(queue)
    call = asyncio.create_task(put(handover, "a"))
    await queue.entered.wait()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await queue.close()
    queue.gate.release()
    await handover.drain()
    del handover, call
    gc.collect()
    assert queue.taken == []
    assert caplog.records == []


# -- the same from threads


def callers(handover: Handover, *, calls: int, threads: int = 8) -> list[Callable[[], None]]:
    """Return programs for threads of which every other awaits in a loop of its own, and the rest block."""

    def program(thread: int) -> Callable[[], None]:
        async def awaiting() -> None:
            for number in range(1, calls + 1):
                await put(handover, f"{thread}-{2 * number - 1}", f"{thread}-{2 * number}")

        def blocking() -> None:
            for number in range(1, calls + 1):
                wait = handover.give([op(f"{thread}-{2 * number - 1}"), op(f"{thread}-{2 * number}")])
                if wait is not None:
                    wait.block()

        return blocking if thread % 2 else lambda: asyncio.run(awaiting())

    return [program(thread) for thread in range(threads)]


async def test_threads_put_in_their_order_and_no_call_is_interrupted_by_another() -> None:
    class Uneven(SuspendingQueue):
        async def put(self, item: Operation) -> None:
            if len(self.taken) % 3 == 0:
                await asyncio.sleep(0)
            self.taken.append(str(item.span_id))

    queue = Uneven()
    handover = handover_to(queue)
    async with asyncio.timeout(_DEADLINE):
        await asyncio.to_thread(in_threads, *callers(handover, calls=100))
    assert len(queue.taken) == handover.put_count == 1_600
    check_order(queue.taken)
    pairs = zip(queue.taken[::2], queue.taken[1::2], strict=True)
    assert all(first.split("-")[0] == second.split("-")[0] for first, second in pairs)


async def test_a_caller_of_another_thread_that_gave_up_and_whose_loop_is_gone_disturbs_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    queue = SuspendingQueue()
    handover = handover_to(queue)

    async def impatient() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await put(handover, "a")

    await asyncio.to_thread(asyncio.run, impatient())
    queue.gate.release()
    await handover.drain()
    assert queue.taken == ["a"]
    assert caplog.records == []


def test_a_caller_whose_queue_is_left_by_its_event_loop_is_not_cancelled() -> None:
    """Nobody cancelled it: it goes on, or is told that the queue takes nothing any more."""
    given = threading.Event()
    ends: list[str] = []

    async def client(handovers: list[Handover]) -> None:
        queue = SuspendingQueue()
        handovers.append(handover_to(queue))
        thread.start()
        await asyncio.to_thread(given.wait, _DEADLINE)
        await queue.entered.wait()

    def agent() -> None:
        async def call() -> None:
            wait = handovers[0].give([op("a")])
            assert wait is not None
            given.set()
            try:
                await wait
            except ClientClosedError:
                ends.append("told")
            except asyncio.CancelledError:
                ends.append("cancelled")
                raise

        asyncio.run(call())

    handovers: list[Handover] = []
    thread = threading.Thread(target=agent, daemon=True)
    asyncio.run(client(handovers))
    thread.join(_DEADLINE)
    assert ends == ["told"]
    late = handovers[0].give([op("late")])
    assert late is not None
    with pytest.raises(ClientClosedError):
        late.block()


async def test_a_queue_that_waits_for_something_that_is_cancelled_goes_on() -> None:
    class Cancelled(SuspendingQueue):
        async def put(self, item: Operation) -> None:
            if item.span_id == "a":
                never = asyncio.get_running_loop().create_future()
                never.cancel()
                await never
            await super().put(item)

    queue = Cancelled({})
    handover = handover_to(queue)
    results = await asyncio.gather(put(handover, "a"), put(handover, "b"), return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["CancelledError", "NoneType"]
    await put(handover, "c")
    assert queue.taken == ["b", "c"]


# -- a queue that is offered to


async def test_a_direct_queue_is_offered_to_without_a_turn_of_the_loop() -> None:
    queue: InMemoryQueue[Operation] = InMemoryQueue()
    handover = handover_to(queue)
    assert handover.give((op("a"), op("b"))) is None
    assert handover.put_count == 2
    assert [(await queue.get()).span_id for _ in range(2)] == ["a", "b"]
    await handover.drain()
    await queue.close()
    with pytest.raises(QueueClosedError):
        handover.give((op("c"),))
    assert handover.put_count == 2


async def test_a_queue_that_was_used_before_counts_what_is_put_from_now_on_and_what_waits() -> None:
    queue: InMemoryQueue[Operation] = InMemoryQueue(3)
    for name in "abcde":
        await queue.put(op(name))
    await queue.get()
    held, dropped = queue.size(), queue.dropped.total()
    handover = handover_to(queue)
    assert handover.put_count == held + dropped
    handover.give((op("f"),))
    assert handover.put_count == held + dropped + 1


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_direct_queue_that_blocks_is_offered_to_and_then_waited_for(blocking: bool) -> None:
    queue: InMemoryQueue[Operation] = InMemoryQueue(2, policy="block")
    handover = handover_to(queue)
    assert handover.give((op("a"), op("b"))) is None
    wait = handover.give((op("c"),))
    assert wait is not None
    assert queue.size() == 3, "it is recorded, whether or not its caller waits"
    if blocking:
        waiting = asyncio.create_task(asyncio.to_thread(wait.block))
    else:
        waiting = asyncio.create_task(asyncio.wait_for(wait, _DEADLINE))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await queue.get()
    async with asyncio.timeout(_DEADLINE):
        await waiting


async def test_threads_offer_each_call_in_order() -> None:
    queue: InMemoryQueue[Operation] = InMemoryQueue(20, policy="block")
    handover = handover_to(queue)
    taken: list[str] = []
    async with asyncio.timeout(_DEADLINE):
        giving = asyncio.create_task(asyncio.to_thread(in_threads, *callers(handover, calls=100)))
        while len(taken) < 1_600:
            taken.append(str((await queue.get()).span_id))
        await giving
    check_order(taken)
    assert handover.put_count == 1_600


class PutOverridden(InMemoryQueue[Operation]):
    """What users wrote while ``put`` was all there was."""

    seen: ClassVar[list[str]] = []

    async def put(self, item: Operation) -> None:
        await asyncio.sleep(0)
        self.seen.append(str(item.span_id))
        await super().put(item)


class OfferOverridden(InMemoryQueue[Operation]):
    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.seen: list[str] = []

    def offer(self, item: Operation) -> None:
        self.seen.append(str(item.span_id))
        super().offer(item)


class BothOverridden(OfferOverridden):
    async def put(self, item: Operation) -> None:
        raise AssertionError(f"{item} is put, though there is an offer")

    def offer(self, item: Operation) -> None:
        super().offer(item)


class PutAboveOffer(OfferOverridden):
    """A ``put`` on top of somebody else's ``offer``."""

    async def put(self, item: Operation) -> None:
        self.seen.append("put")
        await super().put(item)


@pytest.mark.parametrize(
    ("queue", "seen"),
    [
        (OfferOverridden(), ["a", "b"]),
        (BothOverridden(), ["a", "b"]),
        (PutAboveOffer(), ["put", "a", "put", "b"]),
        (type("Below", (PutOverridden,), {"seen": []})(), ["a", "b"]),
    ],
)
async def test_a_queue_whose_class_overrides_put_alone_is_put_to(queue: Any, seen: list[str]) -> None:
    handover = handover_to(queue)
    await put(handover, "a", "b")
    assert queue.seen == seen
    assert queue.size() == handover.put_count == 2


async def test_a_queue_whose_instance_overrides_put_alone_is_put_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue: InMemoryQueue[Operation] = InMemoryQueue()
    original, seen = queue.put, list[str]()

    async def watched(item: Operation) -> None:
        seen.append(str(item.span_id))
        await original(item)

    monkeypatch.setattr(queue, "put", watched)
    handover = handover_to(queue)
    wait: Wait | None = handover.give([op("a"), op("b")])
    assert wait is not None
    await wait
    assert seen == ["a", "b"]
    assert queue.size() == handover.put_count == 2
