"""Deliveries that become another process's: not carried out, given back, and taken up again in order."""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from prefactor_core.exceptions import QueueClosedError
from prefactor_core.execution.dependents import Dependents
from prefactor_core.execution.handler import BatchLimits
from prefactor_core.execution.lanes import Lanes
from prefactor_core.execution.outcome import NOT_REACHED, SETTLED, Dead, Outcome, Retry
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
    lane_of,
    message,
    owned,
    put_all,
    queue_on,
)
from tests.engine.virtual import each, virtual
from tests.support.fake_broker import FakeBroker, Fault, now
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


class Item:
    def __init__(self, name: str) -> None:
        self.name = name
        self.size = 10

    def __repr__(self) -> str:
        return self.name


def make_lanes(max_retries: int = 3, dependents: Dependents | None = None) -> Lanes[Any]:
    return Lanes(RetryPolicy(max_retries=max_retries, rng=dice(1)), lane_of, dependents)


def add(lanes: Lanes[Any], owner: Switch, *names: str) -> None:
    for name in names:
        lanes.add(owned(Item(name), owner))


def names(deliveries: Sequence[Delivery[Any]]) -> str:
    return " ".join(str(delivery.item) for delivery in deliveries)


# -- lanes


def test_what_nobody_owns_is_never_revoked() -> None:
    assert not Delivery(Item("a1")).revoked
    switch = Switch()
    delivery = owned(Item("a1"), switch)
    assert not delivery.revoked
    switch.current = False
    assert delivery.revoked


def test_revoked_deliveries_are_not_handed_out() -> None:
    lanes = make_lanes()
    gone, kept = Switch(), Switch()
    for name in ("a1", "b1", "a2", "c1"):
        lanes.add(owned(Item(name), kept if name[0] == "b" else gone))
    gone.current = False
    assert names(lanes.take(WIDE, 0)) == "b1"
    assert names(lanes.unsent.revoked) == "a1 a2 c1"
    assert lanes.held == 1
    assert lanes.held_bytes == 10
    assert [*lanes._lanes] == ["b"], "an empty lane is not kept"


def test_what_was_received_again_goes_on_behind_what_was_revoked() -> None:
    lanes = make_lanes()
    old, new = Switch(), Switch()
    add(lanes, old, "a1", "a2", "a3")
    old.current = False
    add(lanes, new, "a2", "a3", "a4")
    assert names(lanes.take(WIDE, 0)) == "a2 a3 a4"
    assert names(lanes.unsent.revoked) == "a1 a2 a3"


def test_a_prefix_ends_before_what_is_revoked() -> None:
    lanes = make_lanes()
    one, other = Switch(), Switch()
    add(lanes, one, "a1")
    add(lanes, other, "a2")
    add(lanes, one, "a3")
    other.current = False
    batch = lanes.take(WIDE, 0)
    assert names(batch) == "a1"
    assert lanes.unsent.revoked == []
    lanes.resolve(batch, [SETTLED], 0)
    assert names(lanes.take(WIDE, 0)) == "a3"
    assert names(lanes.unsent.revoked) == "a2"


def test_what_is_with_the_handler_is_resolved_by_its_outcome() -> None:
    lanes = make_lanes()
    old, new = Switch(), Switch()
    add(lanes, old, "a1", "a2", "a3")
    batch = lanes.take(WIDE, 0)
    old.current = False
    add(lanes, new, "a1")
    assert lanes.take(WIDE, 0) == [], "one batch of a lane at a time, with any owner"
    resolution = lanes.resolve(batch, [SETTLED, NOT_REACHED, NOT_REACHED], 0)
    assert names(resolution.settled) == "a1"
    assert names(lanes.take(WIDE, 0)) == "a1"
    assert names(lanes.unsent.revoked) == "a2 a3"


def test_attempts_of_what_was_revoked_do_not_count_against_what_comes_after() -> None:
    lanes = make_lanes(max_retries=2)
    old, new = Switch(), Switch()
    add(lanes, old, "a1")
    time = 0.0
    for _ in range(2):
        time += 1_000
        lanes.resolve(lanes.take(WIDE, time), [Retry("x")], time)
    old.current = False
    add(lanes, new, "a2")
    tries = 0
    dead: list[tuple[Delivery[Any], DeadLetter[Any]]] = []
    while not dead:
        time += 1_000
        batch = lanes.take(WIDE, time)
        assert names(batch) == "a2"
        tries += 1
        dead = lanes.resolve(batch, [Retry("x")], time).dead
    assert tries == 3
    assert dead[0][1].attempts == 3


class OwnersModel(RuleBasedStateMachine):
    """Owners come and go: each delivery is handed out or revoked, once, and each lane in its order."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes = make_lanes()
        self.owner = Switch()
        self.model: dict[str, deque[Delivery[Any]]] = {lane: deque() for lane in "abc"}
        self.out: list[list[Delivery[Any]]] = []
        self.count = 0

    @rule(lane=st.sampled_from("abc"))
    def add(self, lane: str) -> None:
        self.count += 1
        delivery = owned(Item(f"{lane}{self.count}"), self.owner)
        self.lanes.add(delivery)
        self.model[lane].append(delivery)

    @rule()
    def change_hands(self) -> None:
        self.owner.current = False
        self.owner = Switch()

    @rule(items=st.integers(1, 5), lanes=st.integers(1, 3))
    def take(self, items: int, lanes: int) -> None:
        batch = self.lanes.take(BatchLimits(items, 1 << 30, lanes), 0)
        revoked, self.lanes.unsent.revoked = self.lanes.unsent.revoked, []
        assert all(one.revoked for one in revoked)
        assert not any(one.revoked for one in batch)
        for one in revoked:
            assert self._line(one).popleft() is one
        for lane, line in self.model.items():
            mine = [one for one in batch if str(one.item)[0] == lane]
            assert [*line][: len(mine)] == mine
        if batch:
            self.out.append(batch)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), done=st.booleans())
    def resolve(self, data: st.DataObject, *, done: bool) -> None:
        batch = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        outcome: Outcome = SETTLED if done else NOT_REACHED
        resolution = self.lanes.resolve(batch, [outcome] * len(batch), 0)
        assert sorted(map(id, resolution.settled)) == sorted(map(id, batch if done else []))
        for one in batch if done else []:
            assert self._line(one).popleft() is one

    @invariant()
    def the_sums_are_exact(self) -> None:
        assert self.lanes.held == sum(map(len, self.model.values()))

    def teardown(self) -> None:
        for batch in self.out:
            self.lanes.resolve(batch, [NOT_REACHED] * len(batch), 0)
        for _ in range(self.count + 1):
            self.lanes.resolve(batch := self.lanes.take(WIDE, 0), [SETTLED] * len(batch), 0)
        assert self.lanes.held == self.lanes.held_bytes == 0
        assert not self.lanes._lanes

    def _line(self, delivery: Delivery[Any]) -> deque[Delivery[Any]]:
        return self.model[str(delivery.item)[0]]


TestOwnersThatComeAndGo = OwnersModel.TestCase
TestOwnersThatComeAndGo.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


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
    letters = queue.dead_letters()
    assert letters[0].reason == "ValueError: refused"
    assert {letter.reason for letter in letters[1:]} == {FOLLOWS + letters[0].reason}
    assert len(letters) == {"register": 7, "starting": 6, "span0:create": 2}[lost]
    refusing = False
    replayed = [letter.item for letter in letters]
    for operation in replayed:
        await queue.put(operation)
        if not at_once:
            await executor.idle()
    assert await executor.stop(60)
    assert done[-len(replayed) :] == keys_of(replayed)
    assert sorted(done) == sorted(keys_of(life("a", 2)))
    assert queue.dead_lettered == len(replayed), "nothing was lost a second time"


def test_a_loss_that_another_owner_decides_anew_is_no_loss() -> None:
    """What was revoked by the time it was given up may have its effect elsewhere."""
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


class Revocable(Queue[Any]):
    """A queue whose deliveries belong to the holder of the switch."""

    def __init__(self) -> None:
        self.owner = Switch()
        self.waiting: deque[Delivery[Any]] = deque()
        self.settled: list[Any] = []
        self.released: list[Any] = []
        self.dead_lettered: list[DeadLetter[Any]] = []
        self.faults: deque[Exception | None] = deque()
        self.refuses: Callable[[Delivery[Any]], bool] = lambda delivery: delivery.revoked
        self._changed = asyncio.Event()
        self._closed = False

    async def put(self, item: Any) -> None:
        self.waiting.append(owned(item, self.owner))
        self._changed.set()

    async def get(self) -> Any:
        raise NotImplementedError

    async def receive(self, max_items: int, max_bytes: int) -> list[Delivery[Any]]:
        del max_bytes
        while True:
            # As on a broker: what was lost before it was handed out is never handed out.
            while self.waiting and self.waiting[0].revoked:
                self.waiting.popleft()
            if self.waiting:
                return [self.waiting.popleft() for _ in range(min(max_items, len(self.waiting)))]
            if self._closed:
                raise QueueClosedError
            self._changed.clear()
            await self._changed.wait()

    async def settle(self, deliveries: Sequence[Delivery[Any]]) -> Sequence[Delivery[Any]]:
        self._fault()
        refused = [delivery for delivery in deliveries if self.refuses(delivery)]
        self.settled += [delivery.item for delivery in deliveries if delivery not in refused]
        return refused

    async def dead_letter(
        self, letters: Sequence[tuple[Delivery[Any], DeadLetter[Any]]]
    ) -> Sequence[Delivery[Any]]:
        self._fault()
        refused = [delivery for delivery, _ in letters if self.refuses(delivery)]
        self.dead_lettered += [letter for delivery, letter in letters if delivery not in refused]
        return refused

    async def release(self, deliveries: Sequence[Delivery[Any]]) -> None:
        self._fault()
        await asyncio.sleep(0)
        self.released += [delivery.item for delivery in deliveries]

    def size(self) -> int:
        return len(self.waiting)

    async def close(self, num_waiters: int = 1) -> None:
        del num_waiters
        self._closed = True
        self._changed.set()

    @property
    def closed(self) -> bool:
        return self._closed

    def revoke(self) -> None:
        """Somebody else owns everything from now on; what is put later is ours again."""
        self.owner.current = False
        self.owner = Switch()
        self._changed.set()

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
    assert queue.settled == []
    account = executor.account
    assert (account.received, account.settled, account.released, executor.held) == (4, 0, 4, 0)
    await put_all(queue, ("a1", "a2", "b1"))
    assert await executor.stop(60)
    assert sorted(queue.settled) == ["a1", "a2", "b1"]
    assert [item for item in handler.handled if item[0] == "a"] == ["a1", "a1", "a2"]
    check_account(executor)


@virtual
async def test_later_redeliveries_of_the_same_operations_go_on_in_order() -> None:
    rng = dice(5)
    queue, handler = Revocable(), Batches(limits=BatchLimits(3, 1 << 30, 2), takes=0.3)
    executor = start_executor(queue, handler)
    log = [f"{lane}{number:03}" for number in range(30) for lane in "abc"]
    for _ in range(15):
        queue.revoke()
        await put_all(queue, [item for item in log if item not in queue.settled])
        await asyncio.sleep(rng.uniform(0, 3))
        check_account(executor)
    assert await executor.stop(120)
    check_account(executor)
    assert executor.held == 0
    for lane in "abc":
        mine = [item for item in queue.settled if item[0] == lane]
        assert mine == [item for item in log if item[0] == lane]
        handled = [item for item in handler.handled if item[0] == lane]
        assert [*dict.fromkeys(handled)] == mine, "the first time in order, too"


@virtual
async def test_waiting_for_everything_ends_although_deliveries_are_revoked() -> None:
    queue, handler = Revocable(), Batches(limits=SINGLE, takes=1.0)
    executor = start_executor(queue, handler, 1)
    await put_all(queue, [f"a{number}" for number in range(20)])
    await asyncio.sleep(0.5)
    idle = asyncio.create_task(executor.idle())
    await asyncio.sleep(5)
    assert not idle.done()
    queue.revoke()
    async with asyncio.timeout(5):
        await idle
    assert executor.held == 0
    assert await executor.stop(5)


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
        assert executor.held > 0
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
    assert sorted(queue.settled) == ["a1", "a2", "b1", "b2"]
    assert queue.released == ["a3", "b3", "c1"], "in the order in which they were received"
    account = executor.account
    assert (account.received, account.settled, account.released, executor.held) == (7, 4, 3, 0)


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
    assert executor.held == 0
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
    assert (account.received, account.released, executor.held) == (1, 1, 0)
    # Its owner decides now; what follows is not held to be lost here.
    queue.refuses = lambda delivery: delivery.revoked
    await queue.put(start("a"))
    assert await executor.stop(10)
    assert keys_of(queue.settled) == ["a:starting"]
    assert queue.dead_lettered == []


# -- the executor over a broker


@virtual
async def test_operations_of_a_lost_partition_are_carried_out_by_their_next_owner_in_order() -> None:
    broker = FakeBroker(2)
    log = [quality(f"i{number % 4}", number) for number in range(60)]
    effects: list[str] = []
    queues = [queue_on(broker, seed=seed) for seed in range(2)]

    class Slow(Batches):
        async def handle(self, deliveries: Sequence[Delivery[Any]]) -> Sequence[Outcome]:
            outcomes = await super().handle(deliveries)
            effects.extend(key_of(delivery.item) for delivery in deliveries)
            return outcomes

    limits = BatchLimits(2, 1 << 30, 2)
    executors = [start_executor(queue, Slow(limits=limits, takes=1.0), 1) for queue in queues]
    for number, operation in enumerate(log):
        broker.put(number % 2, message(operation, number // 4 + 1))
    broker.fail("settle", None, Fault(), Fault(after=True))
    for partition in (0, 1, 0, 1):
        await asyncio.sleep(7)
        broker.lose(partition)
        for executor in executors:
            check_account(executor)
    async with asyncio.timeout(300):
        while broker.unsettled:
            await asyncio.sleep(1)
    for executor, queue in zip(executors, queues, strict=True):
        await executor.stop(60)
        await queue.disconnect()
        check_account(executor)
        assert executor.held == 0
    for instance in range(4):
        mine = [key for key in effects if key.startswith(f"i{instance}:")]
        assert [*dict.fromkeys(mine)] == [key_of(one) for one in log if one.instance_id == f"i{instance}"]
    assert sum(executor.account.released for executor in executors) > 0
    assert broker.wrongs == []
