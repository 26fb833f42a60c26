"""The queue in memory: the published behaviour, its books, and nobody left asleep."""

import asyncio

import pytest

from prefactor_core.exceptions import QueueClosedError
from prefactor_core.queue.base import DeadLetter, Delivery
from prefactor_core.queue.memory import DEAD_LETTERS_KEPT, InMemoryQueue
from tests.engine.setups import items, put_all
from tests.engine.virtual import each, virtual
from tests.support.bench import now
from tests.support.operations import create, dice, life, quality
from tests.support.seeds import Seeds
from tests.support.virtual_time import run_virtual


def balanced(queue: InMemoryQueue[object]) -> bool:
    return queue.put_count == (
        queue.settled + queue.dead_lettered + queue.dropped.total() + queue.discarded + queue.unsettled
    )


@virtual
async def test_first_in_first_out_and_size() -> None:
    queue: InMemoryQueue[int] = InMemoryQueue()
    await put_all(queue, range(5))
    assert queue.size() == 5
    assert [await queue.get() for _ in range(5)] == [0, 1, 2, 3, 4]
    assert queue.size() == 0
    assert queue.settled == 5
    assert await queue.depth() == 0


def test_put_never_suspends_where_nothing_bounds_it_or_what_is_too_much_is_dropped() -> None:
    dropping: InMemoryQueue[int] = InMemoryQueue(max_items=2)
    unbounded: InMemoryQueue[int] = InMemoryQueue(policy="block")
    for queue in (dropping, unbounded):
        for number in range(100):
            with pytest.raises(StopIteration):
                queue.put(number).send(None)
    assert (dropping.size(), dropping.dropped) == (2, {"item": 98})
    assert (unbounded.size(), unbounded.dropped) == (100, {})


@virtual
async def test_close_hands_out_what_is_left_then_raises() -> None:
    queue: InMemoryQueue[int] = InMemoryQueue()
    await put_all(queue, (1, 2))
    await queue.close()
    await queue.close(5)
    assert queue.closed
    with pytest.raises(QueueClosedError):
        await queue.put(3)
    assert queue.size() == 2
    assert queue.put_count == 2
    assert [await queue.get(), await queue.get()] == [1, 2]
    for _ in range(3):
        with pytest.raises(QueueClosedError):
            await queue.get()


def test_many_getters_putters_and_cancellations_leave_nobody_asleep(seeds: Seeds) -> None:
    async def program(seed: int) -> None:
        rng = dice(seed)
        queue: InMemoryQueue[int] = InMemoryQueue()
        got: list[int] = []
        tasks: list[asyncio.Task[None]] = []

        async def getter() -> None:
            item = await queue.get()
            got.append(item)

        puts = 0
        for _ in range(200):
            what = rng.random()
            if what < 0.4:
                tasks.append(asyncio.create_task(getter()))
            elif what < 0.7:
                await queue.put(puts)
                puts += 1
            elif what < 0.85 and tasks:
                rng.choice(tasks).cancel()
            else:
                await asyncio.sleep(rng.choice([0, 0, 0.1]))
        await asyncio.sleep(1)
        waiting = [task for task in tasks if not task.done()]
        assert not (waiting and queue.size()), "an item waits, and so does a getter"
        await queue.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        got += [await queue.get() for _ in range(queue.size())]
        assert sorted(got) == list(range(puts))

    seeds.run(50, lambda seed: run_virtual(program(seed)))


@virtual
async def test_release_puts_back_at_the_head_in_order_and_wakes() -> None:
    queue: InMemoryQueue[int] = InMemoryQueue()
    await put_all(queue, range(5))
    deliveries = await queue.receive(3, 1 << 30)
    await queue.settle(deliveries[:1])
    await queue.release(deliveries[1:])
    assert queue.size() == 4
    assert items(await queue.receive(9, 1 << 30)) == [1, 2, 3, 4]

    other: InMemoryQueue[int] = InMemoryQueue()
    await put_all(other, (1, 2))
    out = await other.receive(2, 1 << 30)
    getters = [asyncio.create_task(other.get()) for _ in range(2)]
    await asyncio.sleep(1)
    await other.release(out)
    assert await asyncio.gather(*getters) == [1, 2]


@virtual
async def test_dead_letters_are_a_ring_and_all_are_counted() -> None:
    queue: InMemoryQueue[int] = InMemoryQueue()
    many = DEAD_LETTERS_KEPT + 10
    await put_all(queue, range(many))
    deliveries = await queue.receive(many, 1 << 30)
    await queue.dead_letter([(one, DeadLetter(one.item, "no")) for one in deliveries])
    assert queue.dead_lettered == many
    assert [dead.item for dead in queue.dead_letters()] == list(range(10, many))


@virtual
async def test_flush_waits_for_what_is_handed_out_too() -> None:
    queue: InMemoryQueue[int] = InMemoryQueue()
    assert await queue.flush(0)
    await queue.put(1)
    assert not await queue.flush(0)
    began = now()
    assert not await queue.flush(5)
    assert now() - began == pytest.approx(5)
    waiting = [asyncio.create_task(queue.flush(100)) for _ in range(3)]
    (delivery,) = await queue.receive(1, 1)
    await asyncio.sleep(1)
    assert not any(task.done() for task in waiting)
    await queue.settle([delivery])
    assert await asyncio.gather(*waiting) == [True] * 3
    assert not queue._flushers


@each("end", ["dead_letter", "discard"])
async def test_flush_ends_with_any_end_of_the_last_item(end: str) -> None:
    queue: InMemoryQueue[int] = InMemoryQueue()
    await queue.put(1)
    waiting = asyncio.create_task(queue.flush(100))
    await asyncio.sleep(1)
    if end == "discard":
        assert await queue.discard() == 1
        assert queue.discarded == 1
    else:
        (delivery,) = await queue.receive(1, 1)
        await queue.dead_letter([(delivery, DeadLetter(1, "no"))])
    assert await waiting


def test_the_books_are_right_at_every_moment(seeds: Seeds) -> None:
    async def program(seed: int) -> None:
        rng = dice(seed)
        queue: InMemoryQueue[object] = InMemoryQueue(
            rng.choice([None, 5, 20]), rng.choice([None, 3_000, 20_000])
        )
        out: list[Delivery[object]] = []
        waiting: list[object] = [one for number in range(15) for one in life(f"i{number:04}", 3)]
        for _ in range(300):
            what = rng.random()
            if what < 0.5 and waiting:
                await queue.put(waiting.pop(0))
            elif what < 0.65 and queue.size():
                out += await queue.receive(rng.randint(1, 4), 1 << 30)
            elif what < 0.8 and out:
                await queue.settle([out.pop(0)])
            elif what < 0.85 and out:
                one = out.pop(0)
                await queue.dead_letter([(one, DeadLetter(one.item, "no"))])
            elif what < 0.9 and out:
                await queue.release(out)
                out = []
            elif what < 0.92:
                await queue.discard()
            assert balanced(queue)
            assert queue.unsettled == queue.size() + len(out)
        await queue.discard()
        await queue.settle(out)
        assert queue._intake.bytes == queue.unsettled == 0
        assert balanced(queue)

    seeds.run(100, lambda seed: run_virtual(program(seed)))


@virtual
async def test_what_was_delivered_before_keeps_that_it_may_have_been_sent() -> None:
    queue: InMemoryQueue[object] = InMemoryQueue()
    await put_all(queue, (quality("a", 1), create("a", "a-1")))
    deliveries = await queue.receive(2, 1 << 30)
    deliveries[0].maybe_sent = True
    await queue.release(deliveries)
    assert [one.maybe_sent for one in await queue.receive(2, 1 << 30)] == [True, False]


# -- the policy block


@virtual
async def test_block_waits_for_room_in_the_order_of_the_calls() -> None:
    queue: InMemoryQueue[int] = InMemoryQueue(2, policy="block")
    waiting = [asyncio.create_task(queue.put(number)) for number in range(6)]
    await asyncio.sleep(100)
    assert [task.done() for task in waiting] == [True, True, False, False, False, False]
    assert queue.put_count == 2, "a caller that waits has not put yet"
    assert balanced(queue)  # type: ignore[arg-type]
    deliveries = await queue.receive(2, 1 << 30)
    await asyncio.sleep(1)
    assert not waiting[2].done(), "what is handed out takes its room still"
    await queue.settle(deliveries[:1])
    await asyncio.sleep(1)
    assert [task.done() for task in waiting] == [True] * 3 + [False] * 3
    await queue.dead_letter([(deliveries[1], DeadLetter(1, "no"))])
    await asyncio.sleep(1)
    assert [task.done() for task in waiting] == [True] * 4 + [False] * 2
    assert await queue.discard() == 2
    await asyncio.gather(*waiting)
    assert [await queue.get(), await queue.get()] == [4, 5]
    assert queue.dropped == {}
    assert queue.put_count == 6
    assert balanced(queue)  # type: ignore[arg-type]
    assert not queue._intake._blocked


@virtual
async def test_block_is_bounded_by_bytes_and_one_item_always_fits() -> None:
    queue: InMemoryQueue[object] = InMemoryQueue(None, 4_000, policy="block")
    large = create("a", "a-1", payload={"x": "y" * 9_000})
    await queue.put(large)
    small = asyncio.create_task(queue.put(quality("a", 1)))
    await asyncio.sleep(1)
    assert not small.done()
    assert await queue.get() is large
    await small
    again = asyncio.create_task(queue.put(large))
    await asyncio.sleep(1)
    assert not again.done(), "it waits until nothing else is there"
    await queue.get()
    await again
    assert queue.size() == 1
    await queue.discard()
    assert queue._intake.bytes == 0


@virtual
async def test_block_and_what_is_given_back() -> None:
    queue: InMemoryQueue[int] = InMemoryQueue(2, policy="block")
    await put_all(queue, (1, 2))
    deliveries = await queue.receive(2, 1 << 30)
    waiting = asyncio.create_task(queue.put(3))
    await queue.release(deliveries)
    await asyncio.sleep(1)
    assert not waiting.done(), "giving back makes no room"
    assert [await queue.get(), await queue.get()] == [1, 2]
    await waiting
    assert await queue.get() == 3


@virtual
async def test_a_putter_that_is_cancelled_takes_nobodys_room() -> None:
    queue: InMemoryQueue[int] = InMemoryQueue(1, policy="block")
    await queue.put(1)
    first, second = asyncio.create_task(queue.put(2)), asyncio.create_task(queue.put(3))
    await asyncio.sleep(1)
    assert await queue.get() == 1  # wakes the first, which is cancelled before it can put
    first.cancel()
    await second
    assert first.cancelled()
    assert await queue.get() == 3
    assert queue.put_count == 2


def test_block_with_many_putters_and_getters_leaves_nobody_asleep(seeds: Seeds) -> None:
    async def program(seed: int) -> None:
        rng = dice(seed)
        queue: InMemoryQueue[int] = InMemoryQueue(rng.choice([1, 3]), policy="block")
        got: list[int] = []

        async def putter(first: int) -> None:
            for number in range(first, first + 20):
                await queue.put(number)
                assert queue.unsettled <= 3
                if rng.random() < 0.3:
                    await asyncio.sleep(rng.choice([0, 0.1]))

        async def getter() -> None:
            while len(got) < 100:
                deliveries = await queue.receive(rng.randint(1, 3), 1 << 30)
                await asyncio.sleep(rng.choice([0, 0.1]))
                if rng.random() < 0.2:
                    await queue.release(deliveries)
                    continue
                got.extend(delivery.item for delivery in deliveries)
                await queue.settle(deliveries)

        getters = [asyncio.create_task(getter()) for _ in range(2)]
        async with asyncio.timeout(600):
            await asyncio.gather(*(putter(100 * number) for number in range(5)))
            while len(got) < 100:
                await asyncio.sleep(1)
        await queue.close()
        await asyncio.gather(*getters, return_exceptions=True)
        assert sorted(got) == [100 * number + one for number in range(5) for one in range(20)]
        assert queue.settled == 100

    seeds.run(30, lambda seed: run_virtual(program(seed)))
