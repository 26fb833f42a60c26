"""Operations that kill the worker that handles them, in virtual time: they are lost with their dependents."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

from prefactor_core.broker import reader
from prefactor_core.broker.dead_letters import DeadLetters, Selection, StoredDeadLetter
from prefactor_core.exceptions import BrokerError
from prefactor_core.execution.dependents import Dependents
from prefactor_core.execution.handler import BatchLimits
from prefactor_core.execution.lanes import Lanes
from prefactor_core.execution.outcome import OVERTAKEN, SETTLED, Dead, Outcome
from prefactor_core.execution.retry import RetryPolicy
from prefactor_core.operations import Operation, OperationType
from prefactor_core.queue.base import DeadLetter, Delivery
from prefactor_core.queue.executor import TaskExecutor
from tests.engine.setups import KILLED, WIDE, Switch, check_account, keys, lane_of, message, owned, queue_on
from tests.engine.virtual import each, virtual
from tests.support.fake_broker import FakeBroker, FakeConsumingEnd, Fault, now
from tests.support.operations import (
    create,
    dice,
    finish,
    finish_span,
    key_of,
    keys_of,
    quality,
    register,
    start,
)

FOLLOWS = f"follows a lost operation: {KILLED}"


def nested(instance: str) -> list[Operation]:
    """A whole instance: a span with a child and a grandchild, and one beside it."""

    top, child, beside, grandchild = (
        f"{instance}-{name}" for name in ("top", "child", "beside", "grandchild")
    )
    return [
        register(instance),
        start(instance),
        create(instance, top),
        create(instance, child, top),
        create(instance, beside),
        create(instance, grandchild, child, finished=True),
        finish_span(instance, child),
        finish_span(instance, beside),
        finish_span(instance, top),
        quality(instance),
        finish(instance),
    ]


DOOMED = {
    "a-top:create": {
        "a-child:create",
        "a-grandchild:create",
        "a-child:finish",
        "a-top:finish",
    },
    "a:register": {*keys_of(nested("a")[1:])},
    "a:starting": {*keys_of(nested("a")[2:])},
    "a-top:finish": set[str](),
}
"""By poison: what depends on it."""


class Api:
    """Takes what is sent to it, each key once, and what depends on something only after that."""

    def __init__(self) -> None:
        self.poisons: set[str] = set()
        self.sent: list[str] = []
        self.happened: dict[str, list[str]] = {}
        """By instance: keys in the order of their effects."""

    def take(self, operation: Operation) -> Outcome:
        key, happened = key_of(operation), self.happened.setdefault(operation.instance_id or "", [])
        self.sent.append(key)
        if key in happened:
            return OVERTAKEN
        if not set(_needed(operation)) <= set(happened):
            return Dead("rejected: 404")
        happened.append(key)
        return SETTLED

    @property
    def effects(self) -> list[str]:
        return [key for keys in self.happened.values() for key in keys]


def _needed(operation: Operation) -> list[str]:
    if operation.type is OperationType.REGISTER_AGENT_INSTANCE:
        return []
    opener = "register" if operation.type is OperationType.START_AGENT_INSTANCE else "starting"
    needed = [f"{operation.instance_id}:{opener}"]
    span = operation.payload.get("parent_span_id")
    if operation.type is OperationType.FINISH_SPAN:
        span = operation.span_id
    return needed if span is None else [*needed, f"{span}:create"]


class Worker:
    """Dies when it handles a poison."""

    def __init__(self, broker: FakeBroker, api: Api, seed: int, observe: Callable[..., None]) -> None:
        self.queue = queue_on(broker, seed=seed)
        assert isinstance(self.queue.consumer._end, FakeConsumingEnd)
        self.end = self.queue.consumer._end
        self.limits = BatchLimits(20, 1 << 30, 5)
        self._api = api
        retry = RetryPolicy(3, base=0.5, cap=5.0, rng=dice(seed))
        self.executor = TaskExecutor(
            self.queue, self, 2, retry=retry, dependents=Dependents(), observe=observe
        )
        self.executor.start()

    async def handle(self, deliveries: Sequence[Delivery[Operation]]) -> Sequence[Outcome]:
        if any(key_of(delivery.item) in self._api.poisons for delivery in deliveries):
            self.end.crash()
            await asyncio.Event().wait()
        await asyncio.sleep(0.05)
        return [self._api.take(delivery.item) for delivery in deliveries]

    async def end_with(self, ending: Any) -> None:
        await ending
        await self.queue.disconnect()
        check_account(self.executor)
        assert self.executor.prefetched == 0


class World:
    """A broker, an API, and a worker that is started again whenever it dies."""

    def __init__(self, *poisons: str, partitions: int = 1, seed: int = 1) -> None:
        reader.BROKER_RETRY.rng.seed(seed)
        self.broker = FakeBroker(partitions, lease=2.0)
        self.api = Api()
        self.api.poisons |= {*poisons}
        self.all_dead: list[DeadLetter[Any]] = []
        """What observers saw."""
        self.deaths = 0
        self._seed = seed * 1_000

    def put(self, *instances: Sequence[Operation]) -> None:
        """Have instances arrive, all in the first partition, an operation of each in turn."""
        for sequence in range(max(map(len, instances))):
            for operations in instances:
                if sequence < len(operations):
                    self.broker.put(0, message(operations[sequence], sequence + 1))

    def start(self) -> Worker:
        self._seed += 1
        return Worker(self.broker, self.api, self._seed, self._observe)

    async def run(self, within: float = 300.0) -> Worker:
        """Run workers until nothing is unsettled, and return the last one."""
        worker = self.start()
        deadline = now() + within
        while self.broker.unsettled:
            assert now() < deadline, f"{self.broker.unsettled} operations are left"
            await asyncio.sleep(0.1)
            if worker.end.crashed:
                self.deaths += 1
                await worker.end_with(worker.executor.abandon())
                worker = self.start()
        return worker

    async def until_done(self, within: float = 300.0) -> None:
        worker = await self.run(within)
        await worker.end_with(worker.executor.stop(20))
        assert self.broker.wrongs == []

    async def records(self) -> list[StoredDeadLetter]:
        return [record async for record in DeadLetters(self.broker).list()]

    def _observe(
        self, settled: Sequence[Operation], _superseded: Sequence[Operation], dead: Sequence[DeadLetter[Any]]
    ) -> None:
        del settled
        self.all_dead += dead


def id_of(key: str) -> str:
    return f"id-{key}"


def check_letters(records: Sequence[StoredDeadLetter], poison: str, followers: Collection[str]) -> None:
    reasons = {record.id: (record.reason, record.reply) for record in records}
    assert len(reasons) == len(records), "each once"
    assert reasons == {id_of(poison): (KILLED, None), **{id_of(key): (FOLLOWS, None) for key in followers}}


TROUBLE = {
    "none": [],
    "not done": [Fault(), Fault()],
    "done, and nobody hears of it": [Fault(after=True), Fault(after=True)],
    "the driver's own": [Fault(error=RuntimeError("driver")), Fault(after=True, error=KeyError("driver"))],
}


@each("poison, trouble", [*itertools.product(DOOMED, TROUBLE)])
async def test_what_depends_on_a_poison_is_dead_lettered_with_it_unsent(poison: str, trouble: str) -> None:
    world = World(poison)
    world.broker.fail("dead_letter", *TROUBLE[trouble])
    world.put(nested("a"), nested("b"))
    await world.until_done()
    assert world.deaths == 3 + 3
    lost = {poison, *DOOMED[poison]}
    assert not lost & {*world.api.sent}
    records = await world.records()
    check_letters(records, poison, DOOMED[poison])
    assert {record.attempts for record in records if record.reason == KILLED} == {3}
    assert len(world.broker.all_dead) == len(records)
    assert world.api.happened["b"] == keys_of(nested("b"))
    assert world.api.happened.get("a", []) == [key for key in keys_of(nested("a")) if key not in lost]
    # An observer sees each of them once.
    assert Counter(key_of(dead.item) for dead in world.all_dead) == Counter(dict.fromkeys(lost, 1))
    assert {dead.reason for dead in world.all_dead} <= {KILLED, FOLLOWS}


@each("at_once, poison", [*itertools.product([True, False], DOOMED)])
async def test_a_poison_that_kills_no_more_is_replayed_with_what_depends_on_it(
    poison: str, *, at_once: bool
) -> None:
    world = World(poison)
    world.put(nested("a"), nested("b"))
    worker = await world.run()
    assert not {poison, *DOOMED[poison]} & {*world.api.sent}
    assert len(world.all_dead) == 1 + len(DOOMED[poison])
    world.api.poisons.clear()
    all_dead = DeadLetters(world.broker)
    if at_once:
        assert (await all_dead.replay(Selection())).replayed == 1 + len(DOOMED[poison])
    for record in await world.records():
        # One by one, as they were put: the worker has to remember what it has lost, and that it has not.
        assert (await all_dead.replay(Selection(ids={record.id}))).replayed == 1
        await asyncio.sleep(5)
    # The worker that has dead_lettered them carries them out now.
    await asyncio.sleep(30)
    assert world.broker.unsettled == 0
    await worker.end_with(worker.executor.stop(20))
    assert await world.records() == []
    assert sorted(world.api.effects) == sorted(keys_of([*nested("a"), *nested("b")]))


@each("poison", ["a-top:create", "a:register"])
async def test_a_worker_that_dies_between_storing_a_letter_and_removing_its_operation(poison: str) -> None:
    """It stores the dead letter twice, under one id; what depends on it follows all the same."""
    world = World(poison)
    world.broker.buries_in_steps = True
    world.put(nested("a"), nested("b"))
    crash = [True]

    def fails(name: str) -> Fault | None:
        if name == "dead_letter" and crash:
            crash.clear()
            world.broker.ends[-1].crash()
            return Fault(error=BrokerError("dead"))
        return None

    world.broker.faults = fails
    await world.until_done()
    assert world.deaths == 3 + 3 + 1
    assert len(world.broker.all_dead) == 1 + 1 + len(DOOMED[poison])
    check_letters(await world.records(), poison, DOOMED[poison])
    assert not {poison, *DOOMED[poison]} & {*world.api.sent}
    assert len(world.all_dead) == 1 + len(DOOMED[poison]), "seen when the queue knows of it, once"


@virtual
async def test_a_worker_that_loses_the_partition_of_a_poison_it_has_given_up() -> None:
    """Its next owner dead-letters it; the last one does not take it for lost."""
    world = World("a:register")
    world.put(nested("a"), nested("b"))
    lost = [True]

    def loses(name: str) -> Fault | None:
        if name == "dead_letter" and lost:
            lost.clear()
            world.broker.lose(0)
        return None

    world.broker.faults = loses
    await world.until_done()
    assert world.deaths == 3 + 3
    check_letters(await world.records(), "a:register", DOOMED["a:register"])
    assert len(world.broker.all_dead) == len(nested("a"))
    assert world.api.happened["b"] == keys_of(nested("b"))


@each("seed", range(12))
async def test_whatever_goes_wrong_everything_takes_effect_or_is_set_aside(seed: int) -> None:
    rng = dice(seed)
    instances = {name: nested(name) for name in ("a", "b", "c")}
    everything = [key for operations in instances.values() for key in keys_of(operations)]
    poisons = rng.sample(everything, rng.randint(1, 3))
    world = World(*poisons, seed=seed)
    world.broker.buries_in_steps = rng.random() < 0.5
    world.put(*instances.values())

    def fails(name: str) -> Fault | None:
        chance = rng.random()
        if name == "leave" or chance > 0.05:
            return None
        if chance < 0.005:
            world.broker.lose(0)
        return Fault(after=chance > 0.03)

    world.broker.faults = fails
    await world.until_done(3_000)
    world.broker.faults = lambda _: None
    records = await world.records()
    assert {*poisons} & {*world.api.sent} == set()
    assert {id_of(key) for key in poisons} <= {record.id for record in records}
    assert all(record.attempts > 0 for record in records if record.reason == KILLED)
    aside = {record.id for record in records}
    assert {id_of(key) for key in everything} == {id_of(key) for key in world.api.effects} | aside
    # And nothing is beyond repair.
    world.api.poisons.clear()
    await DeadLetters(world.broker).replay(Selection())
    await world.until_done()
    assert await world.records() == []
    assert sorted(world.api.effects) == sorted(everything)


# -- lanes


def given_up(operation: Operation, owner: Switch | None = None) -> Delivery[Operation]:
    delivery = Delivery(operation)
    delivery.dead_letter = DeadLetter(operation, KILLED, attempts=3)
    delivery.owner = owner
    return delivery


def make_lanes(dependents: Dependents | None = None) -> Lanes[Operation]:
    return Lanes(RetryPolicy(rng=dice(1)), lane_of, dependents)


def dead_lettered(lanes: Lanes[Operation]) -> list[tuple[str, str, int]]:
    return [(key_of(dead.item), dead.reason, dead.attempts) for _, dead in lanes.unsent.dead]


@each("dependents", [None, Dependents()])
def test_what_is_given_up_waits_for_its_turn_and_is_not_sent(dependents: Dependents | None) -> None:
    lanes = make_lanes(dependents)
    lanes.add(Delivery(quality("a", 1)))
    lanes.add(given_up(quality("a", 2)))
    lanes.add(Delivery(quality("a", 3)))
    lanes.add(given_up(quality("b", 1)))
    first = lanes.take(WIDE, 0)
    assert keys(first) == ["a:quality:1"]
    assert dead_lettered(lanes) == [("b:quality:1", KILLED, 3)]
    lanes.resolve(first, [SETTLED], 0)
    assert keys(lanes.take(WIDE, 0)) == ["a:quality:3"]
    assert dead_lettered(lanes)[1:] == [("a:quality:2", KILLED, 3)]
    assert lanes.prefetched == 1


def test_what_is_given_up_and_another_ones_by_now_is_given_back_and_no_loss() -> None:
    lanes = make_lanes(Dependents())
    old, new = Switch(), Switch()
    lanes.add(given_up(register("a"), old))
    old.current = False
    again = owned(register("a"), new)
    lanes.add(again)
    assert lanes.take(WIDE, 0) == [again]
    assert dead_lettered(lanes) == []
    assert keys(lanes.unsent.revoked) == ["a:register"]
