"""The intake of a bounded queue: any thread adds, so do finalisers and signal handlers; one loop takes."""

import asyncio
import gc
import logging
import signal
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from prefactor_core.exclusive import Exclusive
from prefactor_core.operations import Operation
from prefactor_core.queue.base import size_of
from prefactor_core.queue.intake import BufferBounds, Intake
from prefactor_core.queue.memory import InMemoryQueue
from tests.support.operations import create, finish, finish_span, quality, register, start
from tests.support.threads import Gone, check_order, in_threads

_DEADLINE = 120.0


# -- from threads


@pytest.mark.usefixtures("eager_switches")
def test_what_threads_add_is_taken_once_and_in_the_order_of_each() -> None:
    intake: Intake[str] = Intake(BufferBounds())
    taken: list[str] = []

    def add(thread: int) -> Callable[[], None]:
        def program() -> None:
            for number in range(1, 2_001):
                large = number % 10 == 0  # such are admitted at once
                intake.add(f"{thread}-{number}", 1 << 20 if large else 1)

        return program

    def take() -> None:
        while len(taken) < 16_000:
            some = intake.take(100)
            taken.extend(some)
            intake.free(len(some), 0)

    in_threads(take, *map(add, range(8)))
    assert len(taken) == len(set(taken)) == 16_000
    check_order(taken)
    assert (intake.put_count, intake.held, len(intake), intake.dropped) == (16_000, 0, 0, Counter())


@pytest.mark.usefixtures("eager_switches")
@pytest.mark.parametrize("bounds", [BufferBounds(100), BufferBounds(10_000), BufferBounds(max_bytes=1 << 20)])
def test_the_account_of_what_threads_put_is_exact_at_any_moment(bounds: BufferBounds) -> None:
    intake: Intake[Operation] = Intake(bounds)
    lives = [[register(f"{n}"), start(f"{n}")] + [quality(f"{n}", q) for q in range(400)] for n in range(6)]
    total = sum(map(len, lives))
    added = [0] * len(lives)
    done: list[Operation] = []
    freed = [0]

    def put(at: int) -> Callable[[], None]:
        def program() -> None:
            for operation in lives[at]:
                intake.add(operation, operation.size)
                added[at] += 1

        return program

    def take() -> None:
        while intake.put_count < total or len(intake):
            some = intake.take(50)
            done.extend(some)
            intake.free(len(some), sum(one.size for one in some))
            freed[0] += len(some)

    def look() -> None:
        put_before = 0
        while put_before < total:
            returned, gone, dropped = sum(added), freed[0], intake.dropped.total()
            put = intake.put_count
            assert put >= max(put_before, returned), "it fell, or an operation is missing"
            assert put >= gone + dropped
            assert intake.held >= 0
            assert intake.items <= bounds.max_items, "more is held than the bound allows"
            put_before = put

    in_threads(take, look, *map(put, range(len(lives))))
    assert intake.put_count == total == len(done) + intake.dropped.total()
    assert (intake.held, intake.items, intake.bytes) == (0, 0, 0)
    order: dict[str | None, list[Operation]] = {}
    for operation in done:
        order.setdefault(operation.instance_id, []).append(operation)
    for life in lives:
        kept = iter(life)
        assert all(one in kept for one in order.get(life[0].instance_id, [])), "out of order"


def test_what_is_appended_without_a_lock_always_fits() -> None:
    """However little room is left: nothing that may be appended unseen is dropped later."""
    for room in range(3_000, 4_200, 41):
        intake: Intake[Operation] = Intake(BufferBounds(room))
        for number in range(300):
            intake.add(register(f"{number}"), 10)
        while intake.dropped.total() == 0:
            intake.add(quality("0", intake.put_count), 10)
        assert intake.held == intake.put_count - 1 <= room - 600, "what was dropped was so at the call"
        for number in range(300):
            intake.add(start(f"{number}"), 10)
            intake.add(finish(f"{number}"), 10)
        assert intake.dropped.total() == 1, "for what closes an instance room was kept"


def test_what_follows_from_what_was_dropped_is_dropped_at_the_call_however_much_room_there_is() -> None:
    intake: Intake[Operation] = Intake(BufferBounds(max_items=8_000, max_bytes=1 << 24))
    number = 0
    while intake.dropped.total() == 0:
        one = create("a", f"{number}", payload={"a": "x" * 300_000})
        intake.add(one, one.size)
        number += 1
    held = intake.take()
    intake.free(len(held), sum(one.size for one in held))
    for operation in (create("a", "child", parent=f"{number - 1}"), finish_span("a", "child")):
        before = intake.dropped.total()
        intake.add(operation, operation.size)
        assert intake.dropped.total() == before + 1
    assert intake.put_count == len(held) + 3
    assert len(intake) == 0


# -- the event loop that takes


async def test_an_item_that_comes_as_the_taker_goes_to_sleep_wakes_it() -> None:
    class Eventful(InMemoryQueue[str]):
        """A queue to which another thread adds as soon as it was found to be empty."""

        found_empty = 0

        def _take(self, max_items: int, max_bytes: int) -> Any:
            taken = super()._take(max_items, max_bytes)
            if not taken and self.found_empty == 0:
                self.found_empty += 1
                in_threads(lambda: self.offer("early"))
            return taken

    queue = Eventful()
    async with asyncio.timeout(_DEADLINE):
        assert await queue.get() == "early"
        later = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        await asyncio.to_thread(queue.offer, "late")
        assert await later == "late"


async def test_a_finaliser_that_adds_as_the_taker_goes_to_sleep_wakes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue: InMemoryQueue[str] = InMemoryQueue()
    listen = queue._intake.listen

    def listen_and_add(rouse: Callable[[], object]) -> None:
        monkeypatch.undo()
        listen(rouse)
        queue.offer("amid")

    monkeypatch.setattr(queue._intake, "listen", listen_and_add)
    async with asyncio.timeout(_DEADLINE):
        assert await queue.get() == "amid"


async def test_a_signal_handler_that_adds_wakes_an_event_loop_that_sleeps() -> None:
    queue: InMemoryQueue[str] = InMemoryQueue()
    taking = asyncio.create_task(queue.get())
    before = signal.signal(signal.SIGUSR1, lambda *_: queue.offer("in a handler"))
    sender = threading.Timer(0.05, signal.pthread_kill, (threading.get_ident(), signal.SIGUSR1))
    try:
        sender.start()
        # No timer of this loop is due before the deadline: only the handler can wake it.
        began = asyncio.get_running_loop().time()
        assert await asyncio.wait_for(taking, _DEADLINE) == "in a handler"
        assert asyncio.get_running_loop().time() < began + _DEADLINE
    finally:
        sender.join()
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("eager_switches")
async def test_a_taker_that_sleeps_whenever_it_can_misses_nothing_that_threads_add() -> None:
    queue: InMemoryQueue[str] = InMemoryQueue()
    turn = threading.Barrier(4)

    def add(thread: int) -> Callable[[], None]:
        def program() -> None:
            for number in range(1, 1_501):
                queue.offer(f"{thread}-{number}")
                if number % 50 == 0:
                    turn.wait(_DEADLINE)

        return program

    taken: list[str] = []
    async with asyncio.timeout(_DEADLINE):
        adding = asyncio.create_task(asyncio.to_thread(in_threads, *map(add, range(4))))
        while len(taken) < 6_000:
            taken.append(await queue.get())
        await adding
    check_order(taken)


def test_what_is_added_after_the_event_loop_ended_is_kept_and_harms_nobody() -> None:
    queue: InMemoryQueue[str] = InMemoryQueue()

    async def program() -> None:
        queue.offer("first")
        assert await queue.get() == "first"
        queue._intake.listen(queue._getters.wake_one)

    asyncio.run(program())
    in_threads(lambda: queue.offer("second"))
    queue.offer("third")
    assert (queue.size(), queue.put_count) == (2, 3)


# -- callers that wait for room


async def test_callers_in_many_event_loops_wait_for_room_and_all_go_on() -> None:
    queue: InMemoryQueue[str] = InMemoryQueue(5, policy="block")
    most = 0

    def add(thread: int) -> Callable[[], None]:
        async def tasks() -> None:
            nonlocal most
            for number in range(1, 201):
                queue.offer(f"{thread}-{number}")
                most = max(most, queue.unsettled)
                if queue.overfull:
                    await queue.room()

        def blocking() -> None:
            nonlocal most
            for number in range(1, 201):
                queue.offer(f"{thread}-{number}")
                most = max(most, queue.unsettled)
                if queue.overfull:
                    queue.block_for_room()

        return blocking if thread % 2 else lambda: asyncio.run(tasks())

    taken: list[str] = []
    async with asyncio.timeout(_DEADLINE):
        adding = asyncio.create_task(asyncio.to_thread(in_threads, *map(add, range(8))))
        while len(taken) < 1_600:
            taken.append(await queue.get())
        await adding
    check_order(taken)
    assert queue.dropped == {}
    # What is being handed out is counted twice for a moment by whoever looks from another thread.
    assert most <= 5 + 8 + 1, "more than one too many for each thread"


async def test_a_close_wakes_all_who_wait_for_room_in_whatever_thread() -> None:
    queue: InMemoryQueue[str] = InMemoryQueue(1, policy="block")
    for number in range(3):
        queue.offer(f"0-{number}")
    waiting = threading.Barrier(5)

    def in_a_loop() -> None:
        async def program() -> None:
            waiting.wait(_DEADLINE)
            await queue.room()

        asyncio.run(program())

    def in_a_thread() -> None:
        waiting.wait(_DEADLINE)
        queue.block_for_room()

    ended = asyncio.create_task(asyncio.to_thread(in_threads, in_a_loop, in_a_loop, in_a_thread, in_a_thread))
    await asyncio.to_thread(waiting.wait, _DEADLINE)
    await asyncio.sleep(0.05)
    await queue.close()
    async with asyncio.timeout(_DEADLINE):
        await ended
    assert queue.overfull
    assert not queue._intake._blocked


async def test_a_caller_that_gave_up_waiting_for_room_in_a_loop_that_is_closed_disturbs_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    queue: InMemoryQueue[str] = InMemoryQueue(1, policy="block")
    for number in range(3):
        queue.offer(f"0-{number}")

    async def impatient() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await queue.room()

    await asyncio.to_thread(asyncio.run, impatient())
    assert not queue._intake._blocked
    assert [await queue.get() for _ in range(3)] == ["0-0", "0-1", "0-2"]
    assert caplog.records == []


# -- amid a call


class Sized:
    """An item that, as it is measured, has the collector run: amid its admission."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def size(self) -> int:
        gc.collect()
        return 10

    def __str__(self) -> str:
        return self.name


@pytest.mark.parametrize("bounds", [BufferBounds(), BufferBounds(50), BufferBounds(50, policy="block")])
def test_a_finaliser_may_add_amid_a_take_or_an_addition_and_look_at_the_account(bounds: BufferBounds) -> None:
    intake: Intake[Any] = Intake(bounds)
    looks: list[int] = []

    def amid() -> None:
        before = intake.put_count
        intake.add("1-1", 1)
        looks.append(intake.put_count - before)
        assert intake.held >= 0

    intake.add(Sized("0-1"), 10)
    Gone(amid)
    intake.add(Sized("0-2"), 10)
    items = intake.take()
    taken = list(map(str, items))
    assert sorted(taken) == ["0-1", "0-2", "1-1"]
    assert taken.index("0-1") < taken.index("0-2")
    assert looks == [1]
    assert intake.put_count == 3
    intake.free(3, sum(map(size_of, items)))
    assert (intake.held, intake.bytes) == (0, 0)


def test_a_handler_of_the_log_may_wait_for_whoever_adds_next(caplog: pytest.LogCaptureFixture) -> None:
    """The warning of a full buffer comes while nothing is locked."""
    intake: Intake[str] = Intake(BufferBounds(1))

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            del record
            in_threads(lambda: intake.add("2-1", 1), lambda: intake.put_count)

    handler = Slow()
    logging.getLogger("prefactor_core.queue").addHandler(handler)
    try:
        intake.add("1-1", 1)
        intake.add("1-2", 1)
    finally:
        logging.getLogger("prefactor_core.queue").removeHandler(handler)
    assert intake.put_count == 3
    assert intake.dropped.total() == 2
    assert "the buffer is full" in caplog.text


def test_an_intake_is_no_place_to_wait_for_another_lock_amid_a_finaliser() -> None:
    """A finaliser amid an admission wants a lock whose holder wants to add: both go on."""
    intake: Intake[Any] = Intake(BufferBounds(50))
    other = Exclusive()
    holds, wants = threading.Event(), threading.Event()
    added: list[str] = []

    def add(item: str) -> None:
        intake.add(item, 1)
        added.append(item)

    def holder() -> None:
        def act() -> None:
            holds.set()
            wants.wait(_DEADLINE)
            add("2-1")

        other.alone(act)

    def amid() -> None:
        holds.wait(_DEADLINE)
        wants.set()
        other.alone(add, "1-1")

    Gone(amid)
    in_threads(holder, lambda: add(Sized("0-1")))  # type: ignore[arg-type]
    assert sorted(map(str, added)) == ["0-1", "1-1", "2-1"]
    assert intake.put_count == 3
