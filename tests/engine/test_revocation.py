"""Deliveries that become another process's: not carried out, released, and taken up again in order."""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from prefactor_core.execution.dependents import Dependents
from prefactor_core.execution.handler import BatchLimits
from prefactor_core.execution.lanes import Lanes
from prefactor_core.execution.outcome import SETTLED, Dead, Retry
from prefactor_core.execution.retry import RetryPolicy
from prefactor_core.operations import Operation
from prefactor_core.queue.base import DeadLetter, Delivery, Queue
from prefactor_core.queue.executor import TaskExecutor
from prefactor_core.queue.memory import InMemoryQueue
from tests.engine.setups import (
    SINGLE,
    WIDE,
    Batches,
    Switch,
    check_account,
    items,
    lane_of,
    owned,
    put_all,
)
from tests.engine.virtual import each, virtual
from tests.support.fake_broker import now
from tests.support.operations import (
    create,
    dice,
    finish,
    finish_span,
    key_of,
    keys_of,
    life,
    quality,
    register,
    start,
)

FOLLOWS = "follows a lost operation: "


def make_lanes(dependents: Dependents | None = None) -> Lanes[Any]:
    return Lanes(RetryPolicy(max_retries=2, rng=dice(1)), lane_of, dependents)


# -- lanes; see also the model in test_lanes


def test_a_prefix_ends_before_what_is_revoked() -> None:
    lanes = make_lanes()
    one, other = Switch(), Switch()
    for name, owner in (("a1", one), ("a2", other), ("a3", one)):
        lanes.add(owned(name, owner))
    other.current = False
    batch = lanes.take(WIDE, 0)
    assert items(batch) == ["a1"]
    assert lanes.unsent.revoked == []
    lanes.resolve(batch, [SETTLED], 0)
    assert items(lanes.take(WIDE, 0)) == ["a3"]
    assert items(lanes.unsent.revoked) == ["a2"]


def test_attempts_of_what_was_revoked_do_not_count_against_what_comes_after() -> None:
    lanes = make_lanes()
    old, new = Switch(), Switch()
    lanes.add(owned("a1", old))
    for time in (1_000, 2_000):
        lanes.resolve(lanes.take(WIDE, time), [Retry("x")], time)
    old.current = False
    lanes.add(owned("a2", new))
    for time in (3_000, 4_000, 5_000):
        batch = lanes.take(WIDE, time)
        assert items(batch) == ["a2"]
        dead = lanes.resolve(batch, [Retry("x")], time).dead
        assert [dead.attempts for _, dead in dead] == ([3] if time == 5_000 else [])


# -- dependents


def test_a_replayed_registration_is_tried_again_and_its_followers_too() -> None:
    dependents = Dependents()
    dependents.lose(register("a"), "refused")
    for follower in life("a", 1)[1:]:
        assert dependents.reason(follower) == "refused"
        dependents.lose(follower, "follows")
    for operation in life("a", 1):
        dependents.revive(operation)
        assert dependents.reason(operation) is None, operation
    assert not dependents


def test_a_replayed_start_does_not_revive_what_its_registration_lost() -> None:
    dependents = Dependents()
    dependents.lose(register("a"), "refused")
    dependents.lose(start("a"), "follows")
    dependents.revive(start("a"))
    assert dependents.reason(start("a")) == "refused"
    dependents.revive(create("a", "a-1"))
    assert dependents.reason(create("a", "a-1")) == "refused"


def test_a_replayed_create_revives_itself_and_not_its_descendants() -> None:
    dependents = Dependents()
    dependents.lose(create("a", "a-1"), "refused")
    dependents.lose(create("a", "a-2", "a-1"), "follows")
    dependents.revive(create("b", "a-1"))
    assert dependents.reason(finish_span("a", "a-1")) == "refused", "it is another instance's"
    dependents.revive(create("a", "a-1"))
    assert dependents.reason(finish_span("a", "a-1")) is None
    assert dependents.reason(finish_span("a", "a-2")) == "follows"
    dependents.revive(create("a", "a-2", "a-1"))
    assert dependents.reason(finish_span("a", "a-2")) is None
    for kind in (finish_span("a", "a-1"), finish("a"), quality("a"), "text", None):
        dependents.revive(kind)


@each("at_once, lost", [*itertools.product([True, False], ["register", "starting", "span0:create"])])
async def test_a_replay_after_a_loss_is_carried_out_whole(lost: str, *, at_once: bool) -> None:
    queue: InMemoryQueue[Operation] = InMemoryQueue()
    done: list[str] = []
    refusing = True

    async def handler(operation: Operation) -> None:
        if refusing and key_of(operation).endswith(lost):
            raise ValueError("refused")
        done.append(key_of(operation))

    executor = TaskExecutor(queue, handler, 2, is_retryable=lambda _: False, dependents=Dependents())
    executor.start()
    await put_all(queue, life("a", 2))
    await executor.idle()
    all_dead = queue.dead_letters()
    assert all_dead[0].reason == "ValueError: refused"
    assert {dead.reason for dead in all_dead[1:]} == {FOLLOWS + all_dead[0].reason}
    assert len(all_dead) == {"register": 7, "starting": 6, "span0:create": 2}[lost]
    refusing = False
    replayed = [dead.item for dead in all_dead]
    for operation in replayed:
        await queue.put(operation)
        if not at_once:
            await executor.idle()
    assert await executor.stop(60)
    assert done[-len(replayed) :] == keys_of(replayed)
    assert sorted(done) == sorted(keys_of(life("a", 2)))
    assert queue.dead_lettered == len(replayed), "nothing was lost a second time"


def test_a_loss_that_another_owner_decides_anew_is_no_loss() -> None:
    """What was revoked by the time it was to be dead-lettered may have its effect elsewhere."""
    lanes = make_lanes(dependents=Dependents())
    old, new = Switch(), Switch()
    lanes.add(owned(register("a"), old))
    batch = lanes.take(WIDE, 0)
    old.current = False
    for operation in [register("a"), start("a")]:
        lanes.add(owned(operation, new))
    resolution = lanes.resolve(batch, [Dead("conflict")], 0)
    assert len(resolution.dead) == 1
    assert [key_of(delivery.item) for delivery in lanes.take(WIDE, 0)] == ["a:register", "a:starting"]
    assert lanes.unsent.dead == []


# -- the executor, on a queue whose deliveries can be taken away


class Revocable(InMemoryQueue[Any]):
    """A queue whose deliveries belong to the holder of the switch."""

    def __init__(self) -> None:
        super().__init__()
        self.owner = Switch()
        self.done: list[Any] = []
        self.released: list[Any] = []
        self.dead: list[DeadLetter[Any]] = []
        self.faults: deque[Exception | None] = deque()
        self.refuses: Callable[[Delivery[Any]], bool] = lambda delivery: delivery.revoked

    async def put(self, item: Any) -> None:
        await super().put(item)
        waiting = self._take(1 << 62, 1 << 62)
        waiting[-1].owner = self.owner
        self._returned.extend(waiting)

    async def receive(self, max_items: int, max_bytes: int) -> list[Delivery[Any]]:
        # As on a broker: what was lost before it was handed out is never handed out.
        while not (found := [one for one in await super().receive(max_items, max_bytes) if not one.revoked]):
            pass
        return found

    async def settle(self, deliveries: Sequence[Delivery[Any]]) -> Sequence[Delivery[Any]]:
        self._fault()
        refused = [delivery for delivery in deliveries if self.refuses(delivery)]
        self.done += [delivery.item for delivery in deliveries if delivery not in refused]
        return refused

    async def dead_letter(
        self, all_dead: Sequence[tuple[Delivery[Any], DeadLetter[Any]]]
    ) -> Sequence[Delivery[Any]]:
        self._fault()
        refused = [delivery for delivery, _ in all_dead if self.refuses(delivery)]
        self.dead += [dead for delivery, dead in all_dead if delivery not in refused]
        return refused

    async def release(self, deliveries: Sequence[Delivery[Any]]) -> None:
        self._fault()
        await asyncio.sleep(0)
        self.released += [delivery.item for delivery in deliveries]

    def revoke(self) -> None:
        """Somebody else owns everything from now on; what is put later is ours again."""
        self.owner.current = False
        self.owner = Switch()

    def _fault(self) -> None:
        error = self.faults.popleft() if self.faults else None
        if error is not None:
            raise error


def start_executor(queue: Queue[Any], handler: Batches, num_workers: int = 2, **more: Any) -> TaskExecutor:
    """Start an executor on a queue."""
    executor = TaskExecutor(
        queue, handler, num_workers, retry=RetryPolicy(3, rng=dice(1)), **{"key": lane_of, **more}
    )
    executor.start()
    return executor


@virtual
async def test_what_was_revoked_goes_back_without_being_handled() -> None:
    queue, handler = Revocable(), Batches(limits=SINGLE, takes=1.0)
    executor = start_executor(queue, handler, 1)
    await put_all(queue, ("a1", "a2", "b1", "c1"))
    await asyncio.sleep(0.5)
    queue.revoke()
    await asyncio.sleep(5)
    assert handler.handled == ["a1"], "what is with the handler is finished"
    assert sorted(queue.released) == ["a2", "b1", "c1"]
    assert queue.done == []
    account = executor.account
    assert (account.received, account.settled, account.released, executor.prefetched) == (4, 0, 4, 0)
    await put_all(queue, ("a1", "a2", "b1"))
    assert await executor.stop(60)
    assert sorted(queue.done) == ["a1", "a2", "b1"]
    assert [item for item in handler.handled if item[0] == "a"] == ["a1", "a1", "a2"]
    check_account(executor)


@virtual
async def test_waiting_for_everything_put_so_far_ends_under_load_although_deliveries_are_revoked() -> None:
    queue, handler = Revocable(), Batches(limits=SINGLE, takes=1.0)
    executor = start_executor(queue, handler, 4, key=str)

    async def load() -> None:
        for number in range(10_000):
            await queue.put(f"item{number}")
            await asyncio.sleep(0.3)

    loading = asyncio.create_task(load())
    for _ in range(5):
        await put_all(queue, [f"more{number}" for number in range(20)])
        await asyncio.sleep(0.1)
        idle = asyncio.create_task(executor.idle())
        await asyncio.sleep(0.5)
        queue.revoke()
        async with asyncio.timeout(15):
            await idle
        assert executor.prefetched > 0
    loading.cancel()
    await executor.stop(60)
    check_account(executor)


@virtual
async def test_waiting_for_everything_ends_although_what_waits_is_never_received() -> None:
    queue, handler = Revocable(), Batches(takes=1.0)
    executor = TaskExecutor(queue, handler)
    await queue.put("a1")
    await queue.put("a2")
    idle = asyncio.create_task(executor.idle())
    await asyncio.sleep(1)
    assert not idle.done()
    queue.revoke()
    executor.start()
    async with asyncio.timeout(5):
        await idle
    assert executor.account.received == 0
    await executor.stop(5)


@virtual
async def test_a_lane_that_backs_off_gives_back_when_its_time_comes() -> None:
    queue, handler = Revocable(), Batches(takes=0.1)
    handler.answers.append(Retry("x", retry_after=20))
    executor = start_executor(queue, handler)
    await queue.put("a1")
    await queue.put("a2")
    await asyncio.sleep(1)
    queue.revoke()
    began = now()
    async with asyncio.timeout(60):
        await executor.idle()
    assert now() - began < 25
    assert queue.released == ["a1", "a2"]
    assert handler.batches == [["a1", "a2"]]
    await executor.stop(5)
    check_account(executor)


@virtual
async def test_stopping_without_draining_finishes_what_is_with_the_handler() -> None:
    queue, handler = Revocable(), Batches(limits=BatchLimits(2, 1 << 30, 1), takes=2.0)
    executor = start_executor(queue, handler, 2)
    await put_all(queue, ("a1", "a2", "a3", "b1", "b2", "b3", "c1"))
    await asyncio.sleep(1)
    began = now()
    assert not await executor.stop(60, drain=False)
    assert now() - began == pytest.approx(1)
    assert sorted(handler.handled) == ["a1", "a2", "b1", "b2"]
    assert sorted(queue.done) == ["a1", "a2", "b1", "b2"]
    assert queue.released == ["a3", "b3", "c1"], "in the order in which they were received"
    account = executor.account
    assert (account.received, account.settled, account.released, executor.prefetched) == (7, 4, 3, 0)


@virtual
async def test_stopping_without_draining_waits_no_longer_than_it_is_told() -> None:
    queue, handler = Revocable(), Batches(takes=1e6)
    executor = start_executor(queue, handler, 1)
    await queue.put("a1")
    await asyncio.sleep(1)
    began = now()
    assert not await executor.stop(5, drain=False)
    assert now() - began == pytest.approx(5)
    assert queue.released == ["a1"]
    check_account(executor)


@virtual
async def test_what_is_given_back_at_an_end_is_in_the_order_of_receipt() -> None:
    queue, handler = Revocable(), Batches(limits=SINGLE, takes=0.1)
    executor = start_executor(queue, handler, 3)
    queue.faults.extend([OSError()] * 100)  # nothing can be settled
    items = [f"{lane}{number}" for number in range(4) for lane in "abc"]
    await put_all(queue, items)
    await asyncio.sleep(2)
    queue.faults.clear()
    queue.faults.append(None)
    await executor.abandon()
    assert queue.released == items
    check_account(executor)


@each("end, moment", [*itertools.product(["abandon", "stop", "drain"], [0.0, 0.4, 0.8, 1.0, 1.4, 3.0, 9.0])])
async def test_no_delivery_is_forgotten_when_followers_and_revoked_ones_meet_an_end(
    moment: float, end: str
) -> None:
    """Both are off their lanes while the queue is told, and the queue does not listen."""
    queue, handler = Revocable(), Batches(takes=0.5)
    handler.answers.append(Dead("refused"))
    executor = start_executor(queue, handler, 3, dependents=Dependents())
    await put_all(queue, [*life("a", 2), *life("b", 2)])
    await asyncio.sleep(0.1)
    first = queue.owner
    queue.owner = Switch()
    await put_all(queue, [register("c"), *life("d")])
    queue.faults.extend([OSError()] * 8)
    await asyncio.sleep(0.3)
    first.current = False
    for _ in range(int(moment * 10)):
        await asyncio.sleep(0.1)
        check_account(executor)
    if end == "abandon":
        queue.faults.clear()
        await executor.abandon()
    else:
        await executor.stop(3, drain=end == "drain")
    check_account(executor)
    assert executor.prefetched == 0
    account = executor.account
    assert account.received == account.settled + account.dead_lettered + account.released


@each("what", ["settle", "dead"])
async def test_what_the_queue_refuses_is_counted_as_given_back(what: str) -> None:
    queue, handler = Revocable(), Batches(takes=0.5)
    if what == "dead":
        handler.answers.append(Dead("refused"))
    queue.refuses = lambda _: True
    executor = start_executor(queue, handler, dependents=Dependents())
    await queue.put(register("a"))
    await asyncio.sleep(2)
    account = executor.account
    assert (account.received, account.released, executor.prefetched) == (1, 1, 0)
    # Its owner decides now; what follows is not held to be lost here.
    queue.refuses = lambda delivery: delivery.revoked
    await queue.put(start("a"))
    assert await executor.stop(10)
    assert keys_of(queue.done) == ["a:starting"]
    assert queue.dead == []


# -- the executor over a broker
