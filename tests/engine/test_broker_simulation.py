"""Producers, workers and a broker that all fail at random: nothing lost, each effect once, in order."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field

from prefactor_core.broker import publisher, reader
from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.exceptions import BrokerError
from prefactor_core.execution.dependents import Dependents
from prefactor_core.execution.handler import BatchLimits
from prefactor_core.execution.outcome import NOT_REACHED, OVERTAKEN, SETTLED, Outcome, Retry
from prefactor_core.execution.retry import RetryPolicy
from prefactor_core.operations import Operation
from prefactor_core.queue.base import Delivery
from prefactor_core.queue.executor import TaskExecutor
from prefactor_core.queue.intake import BufferBounds
from tests.engine.setups import check_account
from tests.support.fake_broker import FakeBroker, FakeConsumingEnd, Fault, PublishFault, now
from tests.support.operations import dice, key_of, life, quality
from tests.support.seeds import Seeds
from tests.support.virtual_time import run_virtual

_WEATHER = 90.0
"""Seconds for which things go wrong."""
_LEASE = 10.0


@dataclass(slots=True)
class Effects:
    """What has happened at the API: each key takes effect once, if it is asked for a hundred times."""

    ignore_keys: bool = False
    happened: dict[str, list[str]] = field(default_factory=dict)
    """By instance: keys in the order of their effects."""
    known: set[str] = field(default_factory=set)

    def apply(self, operation: Operation) -> bool:
        """Have an operation take effect; whether it had before."""
        key = key_of(operation)
        before = key in self.known
        if not before or self.ignore_keys:
            self.known.add(key)
            self.happened.setdefault(operation.instance_id or key, []).append(key)
        return before


class Handler:
    """Carries out batches, one operation after the other, slowly and not always to the end."""

    def __init__(self, effects: Effects, rng: random.Random) -> None:
        self._effects = effects
        self._rng = rng
        self.limits = BatchLimits(rng.choice([1, 5, 50]), 1 << 30, rng.choice([1, 3, 50]))
        self.calm = False

    async def handle(self, deliveries: Sequence[Delivery[Operation]]) -> Sequence[Outcome]:
        rng = self._rng
        outcomes: list[Outcome] = []
        trouble = 0.0 if self.calm else 0.15
        failing = rng.random() < trouble
        stop_at = rng.randrange(len(deliveries)) if failing else len(deliveries)
        await asyncio.sleep(rng.choice([0.001, 0.05, 0.5]))
        if rng.random() < trouble / 5:
            await asyncio.sleep(rng.uniform(0, 3 * _LEASE))  # long after others own it, it goes on
        for number, delivery in enumerate(deliveries):
            if number == stop_at:
                if rng.random() < 0.5:
                    self._effects.apply(delivery.item)  # and nobody hears of it
                delivery.maybe_sent = True
                rest = len(deliveries) - number - 1
                return [*outcomes, Retry("trouble", weight=0.0), *[NOT_REACHED] * rest]
            outcomes.append(OVERTAKEN if self._effects.apply(delivery.item) else SETTLED)
            if rng.random() < 0.05:
                await asyncio.sleep(0.2)
        return outcomes


class Worker:
    def __init__(self, broker: FakeBroker, effects: Effects, seed: int) -> None:
        self.queue = BrokerQueue(broker, BufferBounds(10, 1 << 20), rng=dice(seed))
        end = self.queue.consumer._end
        assert isinstance(end, FakeConsumingEnd)
        self.end = end
        self.handler = Handler(effects, dice(seed))
        retry = RetryPolicy(3, base=0.5, cap=10.0, rng=dice(seed))
        self.executor = TaskExecutor(
            self.queue, self.handler, 3, retry=retry, dependents=Dependents(), linger=0.01
        )
        self.executor.start()

    async def crash(self) -> None:
        """Be gone: what runs is cut off, and nothing more reaches the broker."""
        self.end.crash()
        await self._end_with(self.executor.abandon())

    async def stop(self, *, drain: bool) -> None:
        await self._end_with(self.executor.stop(20, drain=drain))

    async def _end_with(self, ending: Awaitable[object]) -> None:
        await ending
        await self.queue.disconnect()
        check_account(self.executor)
        assert self.executor.prefetched == 0


class World:
    def __init__(self, seed: int, *, ignore_keys: bool = False) -> None:
        self.seed = seed
        self.rng = dice(seed)
        self.broker = FakeBroker(
            self.rng.choice([1, 3, 8]),
            lease=_LEASE,
            ranks=self.rng.random() < 0.7,
            fences_locally=self.rng.random() < 0.5,
        )
        self.effects = Effects(ignore_keys)
        self.put: dict[str, list[str]] = {}
        self.producers: list[BrokerQueue] = []
        self.workers: list[Worker] = []
        self.ended: list[Worker] = []
        self._seeds = seed * 1_000
        for shared in (reader.BROKER_RETRY, publisher._USUAL_RETRY):
            shared.rng.seed(seed)

    def check_accounts(self) -> None:
        for worker in self.workers:
            check_account(worker.executor)
        for producer in self.producers:
            at = producer.published
            assert at.put == at.confirmed + at.unconfirmed + at.buffered + sum(at.dropped.values())
        assert self.broker.wrongs == []

    async def produce(self, name: str) -> None:
        """An agent with some instances at a time, each put in its order."""
        rng = dice(self.seed * 100 + ord(name))
        producer = BrokerQueue(self.broker, BufferBounds(100_000, 1 << 30), rng=rng)
        self.producers.append(producer)
        lives: list[list[Operation]] = []
        for number in range(rng.randint(1, 4)):
            instance = f"{name}{number}"
            lives.append([*life(instance, rng.randint(0, 6)), *(quality(instance, one) for one in range(3))])
        for one in lives:
            one.reverse()
        while lives:
            chosen = rng.choice(lives)
            operation = chosen.pop()
            await producer.put(operation)
            self.put.setdefault(operation.instance_id or "", []).append(key_of(operation))
            if not chosen:
                lives.remove(chosen)
            if rng.random() < 0.4:
                await asyncio.sleep(rng.uniform(0, 6))

    def start_worker(self) -> None:
        self._seeds += 1
        self.workers.append(Worker(self.broker, self.effects, self._seeds))

    async def storm(self) -> None:
        """Everything that can go wrong does, until the weather clears."""
        rng, broker = self.rng, self.broker
        until = now() + _WEATHER
        broker.latency = lambda: rng.choice([0.001, 0.01, 0.1, rng.choice([1.0, 7.0])])
        share = rng.uniform(0, 0.15)
        broker.faults = lambda name: fault(rng) if name != "leave" and rng.random() < share else None
        broker.publish_faults = lambda _, count: publish_fault(rng, count) if rng.random() < share else None
        while now() < until:
            await asyncio.sleep(rng.uniform(0.5, 8))
            self.check_accounts()
            what = rng.randrange(7)
            if what in {0, 1} and self.workers:
                worker = self.workers.pop(rng.randrange(len(self.workers)))
                await (worker.crash() if what == 0 else worker.stop(drain=rng.random() < 0.5))
                self.ended.append(worker)
            elif what in {2, 3} and len(self.workers) < 4:
                self.start_worker()
            elif what == 4:
                broker.lose(rng.randrange(broker.count))
            elif what == 5:
                broker.unavailable = not broker.unavailable
        broker.unavailable = False
        broker.latency = lambda: 0.001
        broker.faults = lambda _: None
        broker.publish_faults = lambda *_: None

    async def run(self) -> list[str]:
        self.start_worker()
        storm = asyncio.create_task(self.storm())
        await asyncio.gather(*(self.produce(name) for name in "abc"))
        await storm
        for worker in self.workers:
            worker.handler.calm = True
        self._seeds += 1
        while len(self.workers) < 2:
            self.start_worker()
            self.workers[-1].handler.calm = True
        for producer in self.producers:
            assert await producer.flush(60), "publishing does not end"
        deadline = now() + 300
        while self.broker.unsettled or any(worker.executor.prefetched for worker in self.workers):
            assert now() < deadline, f"{self.broker.unsettled} operations are not settled"
            self.check_accounts()
            await asyncio.sleep(0.5)
        for worker in self.workers:
            await worker.stop(drain=True)
        for producer in self.producers:
            await producer.close()
            await producer.disconnect()
        self.check_accounts()
        return self.problems()

    def problems(self) -> list[str]:
        found: list[str] = []
        for producer in self.producers:
            at = producer.published
            if at.confirmed != at.put:
                found.append(f"of {at.put} only {at.confirmed} are confirmed")
        if self.broker.all_dead:
            found.append(f"{len(self.broker.all_dead)} dead letters")
        if any(worker.end.owned or worker.end in self.broker.members for worker in self.workers):
            found.append("somebody has not let go")
        happened = self.effects.happened
        for instance, keys in self.put.items():
            effects = happened.get(instance, [])
            found += [f"doubled: {key}" for key, count in Counter(effects).items() if count > 1]
            found += [f"lost: {key}" for key in set(keys) - set(effects)]
            found += [f"invented: {key}" for key in set(effects) - set(keys)]
            if [*dict.fromkeys(effects)] != [key for key in keys if key in effects]:
                found.append(f"out of order: {instance}")
        return found


def fault(rng: random.Random) -> Fault:
    error = RuntimeError("the driver's own") if rng.random() < 0.1 else BrokerError("a fault")
    return Fault(rng.random() < 0.5, error)


def publish_fault(rng: random.Random, count: int) -> PublishFault:
    confirmed = rng.randint(0, count)
    return PublishFault(confirmed, rng.randint(confirmed, count))


def test_nothing_is_lost_doubled_or_out_of_order(seeds: Seeds) -> None:
    def check(seed: int) -> None:
        assert run_virtual(World(seed).run()) == []

    seeds.run(120, check)


def test_the_storms_are_storms() -> None:
    """They do what they are said to: workers die, operations come twice, effects are asked for again."""
    crashed = repeated = before = released = 0
    for seed in range(10):
        world = World(seed)
        assert run_virtual(world.run()) == []
        crashed += sum(worker.end.crashed for worker in world.ended)
        repeated += sum(len(each) - len(set(each)) for each in world.broker.arrived)
        everybody = [*world.ended, *world.workers]
        before += sum(worker.executor.account.overtaken for worker in everybody)
        released += sum(worker.executor.account.released for worker in everybody)
    assert crashed >= 5
    assert repeated >= 20
    assert before >= 20
    assert released >= 20


def test_control_an_api_without_keys_doubles_effects() -> None:
    """The checker bites: the same storms on an API that ignores keys are found out."""
    found = []
    for seed in range(5):
        found += run_virtual(World(seed, ignore_keys=True).run())
    assert any(problem.startswith("doubled") for problem in found)
