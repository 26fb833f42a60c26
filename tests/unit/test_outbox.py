"""The outbox: the order of calls, whatever the queue does."""

import asyncio
import gc

import pytest

from prefactor_core import InMemoryQueue, Operation, OperationType, Queue, QueueClosedError
from prefactor_core.outbox import Outbox
from tests.unit.samples import AT


def op(name: str) -> Operation:
    return Operation(OperationType.CREATE_SPAN, {"span_id": name}, AT)


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
            for _ in range(self._turns[name]):
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


async def test_the_order_of_calls_is_kept_where_puts_overtake_each_other() -> None:
    queue = SuspendingQueue({"a": 9, "b": 1, "c": 5, "d": 0, "e": 3})
    outbox = Outbox(queue)
    await asyncio.gather(outbox.put(op("a"), op("b")), outbox.put(op("c")), outbox.put(op("d"), op("e")))
    assert queue.taken == ["a", "b", "c", "d", "e"]
    assert outbox.put_count == 5


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


async def test_a_put_returns_when_all_of_it_has_been_put() -> None:
    queue = SuspendingQueue()
    call = asyncio.create_task(Outbox(queue).put(op("a"), op("b")))
    await queue.entered.wait()
    await finish_one_by_one(queue, call)


async def test_a_cancelled_caller_leaves_no_hole() -> None:
    queue = SuspendingQueue()
    outbox = Outbox(queue)
    calls = [asyncio.create_task(outbox.put(op(name), op(name + "'"))) for name in "abc"]
    await queue.entered.wait()
    calls[0].cancel()
    calls[1].cancel()
    for _ in range(6):
        queue.gate.release()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["CancelledError", "CancelledError", "NoneType"]
    assert queue.taken == ["a", "a'", "b", "b'", "c", "c'"]


async def test_drain_waits_for_what_was_given_even_by_cancelled_callers() -> None:
    queue = SuspendingQueue()
    outbox = Outbox(queue)
    await outbox.drain()
    calls = [asyncio.create_task(outbox.put(op(name))) for name in "ab"]
    await queue.entered.wait()
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await finish_one_by_one(queue, asyncio.create_task(outbox.drain()))


async def test_a_put_that_fails_fails_its_own_caller_and_holds_nobody_up() -> None:
    queue = SuspendingQueue({"a": 3, "b": 0})
    outbox = Outbox(queue)
    call = asyncio.create_task(outbox.put(op("a")))
    await queue.entered.wait()
    later = asyncio.create_task(outbox.put(op("b")))
    await queue.close()
    results = await asyncio.gather(call, later, return_exceptions=True)
    assert [str(result) for result in results] == ["a", "b"]
    assert all(isinstance(result, QueueClosedError) for result in results)
    assert outbox.put_count == 0
    await outbox.drain()


async def test_an_immediate_queue_is_put_to_without_a_turn_of_the_loop() -> None:
    queue: InMemoryQueue[Operation] = InMemoryQueue()
    outbox = Outbox(queue)
    with pytest.raises(StopIteration):
        outbox.put(op("a"), op("b")).send(None)
    assert [(await queue.get()).span_id for _ in range(2)] == ["a", "b"]
    assert outbox.put_count == 2
    await queue.close()
    with pytest.raises(QueueClosedError):
        await outbox.put(op("c"))
    assert outbox.put_count == 2


async def test_a_put_whose_caller_was_cancelled_fails_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    queue = SuspendingQueue()
    outbox = Outbox(queue)
    call = asyncio.create_task(outbox.put(op("a")))
    await queue.entered.wait()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await queue.close()
    queue.gate.release()
    await outbox.drain()
    del outbox, call
    gc.collect()
    assert queue.taken == []
    assert caplog.records == []
