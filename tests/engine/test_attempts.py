"""What a dead letter says of its attempts is what was sent, counted at the API, however it came to be one."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from prefactor_core.api.circuit_breaker import CircuitBreaker
from prefactor_core.api.delivery import ApiDelivery
from prefactor_core.api.replies import Reply
from prefactor_core.broker.dead_letters import DeadLetters, Selection, StoredDeadLetter
from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.execution.dependents import Dependents
from prefactor_core.execution.outcome import FOLLOWS
from prefactor_core.operations import Operation
from prefactor_core.queue.executor import TaskExecutor
from tests.engine.setups import carried_out, message, queue_on, retry_of
from tests.engine.virtual import each, virtual
from tests.support.bench import Bench, make_bench, now, running
from tests.support.fake_api import (
    FakeApi,
    Fault,
    Request,
    Wanted,
    error_body,
    lost_request,
    page,
    status,
)
from tests.support.fake_broker import FakeBroker, FakeConsumingEnd
from tests.support.operations import create, key_of, life, quality, register, start

SUBJECT = "a-span1:create"
NO_BULK = Reply(404)


class CountingApi(FakeApi):
    """Counts by key how often an operation was sent on its own account.

    That is a request of its own; in bulk, the output that ends it. A bulk request of it alone that was
    answered with less than a failure only says that a request of its own has to tell.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.own: dict[str, int] = {}
        self.hangs = False

    async def post(self, path: str, body: bytes, sdk_header: str | None = None) -> Reply:
        keys = [one.key for one in self._read(path, body)]
        if self.hangs:
            self._count(*keys)
            await asyncio.Event().wait()
        reply = await super().post(path, body, sdk_header)
        if self.unavailable or reply.status == 429:
            return reply
        outputs = (reply.body or {}).get("outputs")
        if isinstance(outputs, dict):
            self._count(
                *(key for key, it in outputs.items() if it.get("code") in {"conflict", "invalid_action"})
            )
        elif len(keys) == 1 and (not path.endswith("/bulk") or reply.status is None or reply.status >= 500):
            self._count(*keys)
        return reply

    def _count(self, *keys: str) -> None:
        for key in keys:
            self.own[key] = self.own.get(key, 0) + 1


def refuse(code: int, error: str, *keys: str) -> Callable[[Wanted], tuple[int, str] | None]:
    return lambda one: (code, error) if one.key in (keys or (SUBJECT,)) else None


def whenever(fault: Fault) -> Callable[[Request], Fault | None]:
    """Have requests with the subject fail as a whole."""
    return lambda request: fault if SUBJECT in request.keys else None


def check(bench: Bench, attempts: int | None = None) -> None:
    """The subject's dead letter says what the API has counted; dependents were never sent by themselves."""
    assert isinstance(bench.api, CountingApi)
    dead = bench.dead
    assert dead[SUBJECT].attempts == bench.api.own[SUBJECT]
    assert attempts is None or dead[SUBJECT].attempts == attempts
    for key in dead.keys() - {SUBJECT}:
        assert (dead[key].attempts, bench.api.own.get(key)) == (0, None)
        assert dead[key].reason == FOLLOWS + dead[SUBJECT].reason


LIVES = (life("a", 3), life("b", 3))


@each("code, error", [(422, "invalid"), (404, "not_found"), (413, "too_large"), (400, "bad")])
async def test_refused(code: int, error: str) -> None:
    """In bulk with others, and then by itself; where there is no bulk, once."""
    for no_bulk in (None, NO_BULK):
        check(await carried_out(CountingApi(reject=refuse(code, error), no_bulk=no_bulk), *LIVES), 1)


@each("code", [413, 422, 400])
async def test_refused_with_its_whole_request(code: int) -> None:
    fault = Fault(Reply(code, error_body("no")))
    check(await carried_out(CountingApi(faults=whenever(fault)), *LIVES), 1)


@virtual
async def test_a_conflict_in_bulk() -> None:
    api = CountingApi(instances={"a": "active"}, spans={"a-span1": "over"})
    check(await carried_out(api, [create("a", "a-span1"), create("a", "a-y")], life("b")), 1)


@each("code, no_bulk", [(401, None), (403, None), (401, NO_BULK), (403, NO_BULK)])
async def test_not_allowed_although_the_token_is_good(code: int, no_bulk: Reply | None) -> None:
    """It is asked twice by itself before it is believed."""
    check(await carried_out(CountingApi(reject=refuse(code, "no"), no_bulk=no_bulk), *LIVES), 2)


FAILURES = [status(500), page(502), lost_request()]


async def failing(fault: Fault, no_bulk: Reply | None = None) -> Bench:
    """Have the subject fail until its retries are exhausted, while others succeed."""
    api = CountingApi(faults=whenever(fault), no_bulk=no_bulk, latency=lambda: 0.02)
    bench = make_bench(api)
    async with running(bench):
        await bench.put_all(*LIVES)
        for number in range(90):
            await bench.put(*life(f"n{number:02}"))
            await asyncio.sleep(1)
        await bench.settle()
    return bench


@each("fault", FAILURES)
async def test_failed_until_its_retries_are_exhausted(fault: Fault) -> None:
    """The API's own failures, and hearsay, which weighs less and so is repeated more often."""
    bench = await failing(fault)
    check(bench)
    assert bench.dead[SUBJECT].attempts >= 4
    assert bench.dead[SUBJECT].reason.startswith(f"failed after {bench.dead[SUBJECT].attempts} attempts: ")


@each("fault", FAILURES)
async def test_failed_where_there_is_no_bulk(fault: Fault) -> None:
    check(await failing(fault, NO_BULK))


@virtual
async def test_outages_and_throttling_are_no_attempts() -> None:
    api = CountingApi(instances={"a": "active"}, unavailable=True, reject=refuse(422, "invalid"))
    bench = make_bench(api)
    async with running(bench):
        await bench.put(create("a", "a-span1"))
        await asyncio.sleep(60)
        api.script = deque([status(429, retry_after=1)] * 3)
        api.unavailable = False
        await bench.settle()
    check(bench, 1)


@virtual
async def test_held_lanes_count_each_refusal() -> None:
    """Where everything is rejected, what is not believed is sent again and again."""
    api = CountingApi(reject=lambda one: (404, "not_found") if one.action.endswith("register") else None)
    bench = make_bench(api)
    async with running(bench):
        for number in range(40):
            await bench.put(register(f"i{number}"), start(f"i{number}"))
        await asyncio.sleep(60)
        api.reject = lambda one: (404, "not_found") if one.instance.startswith(("i1", "i2")) else None
        await bench.settle(100_000)
    assert len(bench.dead) > 20
    assert max(dead.attempts for dead in bench.dead.values()) > 5
    assert {key: dead.attempts for key, dead in bench.dead.items()} == {
        key: api.own.get(key, 0) for key in bench.dead
    }


# -- through a broker: replays, and owners that end


class World:
    """A broker and an API, with a worker between them."""

    def __init__(self, api: CountingApi) -> None:
        self.api = api
        self.broker = FakeBroker(1)
        self._passing = 0

    def put(self, operations: list[Operation]) -> None:
        self.broker.put(0, *(message(one, number) for number, one in enumerate(operations, 1)))

    @asynccontextmanager
    async def worker(self, seed: int = 1) -> AsyncIterator[tuple[BrokerQueue, TaskExecutor]]:
        queue, retry = queue_on(self.broker, seed=seed), retry_of(seed)
        delivery = ApiDelivery(self.api, CircuitBreaker(self.api.ping, retry, latch=False))
        executor = TaskExecutor(queue, delivery, 2, retry=retry, dependents=Dependents(), linger=0.01)
        executor.start()
        try:
            yield queue, executor
        finally:
            await executor.stop(1, drain=False)
            await queue.disconnect()

    async def dead(self, key: str = SUBJECT) -> StoredDeadLetter:
        """Wait for a dead letter, while operations of others succeed."""
        until = now() + 3_600
        while now() < until:
            async for one in DeadLetters(self.broker).list():
                envelope = one.read()
                if envelope is not None and key_of(envelope.operation) == key:
                    return one
            self._passing += 1
            self.put(life(f"n{self._passing:04}"))
            await asyncio.sleep(1)
        raise AssertionError(f"{key} is no dead letter")

    async def sent(self, times: int, key: str = SUBJECT) -> None:
        while self.api.own.get(key, 0) < times:
            await asyncio.sleep(0.05)


@virtual
async def test_a_replay_begins_anew() -> None:
    world = World(CountingApi(reject=refuse(422, "invalid")))
    world.put(life("a", 3))
    async with world.worker():
        assert (await world.dead()).attempts == 1
        for _ in range(2):
            world.api.own.clear()
            await DeadLetters(world.broker).replay(Selection())
            assert (await world.dead()).attempts == world.api.own[SUBJECT] == 1


@virtual
async def test_what_travels_alone_among_others() -> None:
    """It was set apart when it was first refused; replayed, it is sent by itself from the beginning."""
    world = World(CountingApi(reject=refuse(422, "invalid"), latency=lambda: 0.02))
    world.put(life("a", 3))
    async with world.worker():
        await world.dead()
        world.api.reject = lambda _: None
        world.api.faults = whenever(status(500))
        world.api.own.clear()
        await DeadLetters(world.broker).replay(Selection())
        for number in range(5):
            world.put(life(f"b{number}", 3))
        dead = await world.dead()
        assert dead.attempts == world.api.own[SUBJECT]


@each("isolated, crashes", [(False, False), (False, True), (True, True)])
async def test_an_owner_counts_its_own_attempts(*, isolated: bool, crashes: bool) -> None:
    """What waits for a retry when its owner ends, or crashes, begins anew with the next one."""
    world = World(CountingApi(faults=whenever(status(500)), latency=lambda: 0.02))
    world.broker.isolated = {0} if isolated else set()
    world.put(life("a", 3))
    for number in range(10):
        world.put(life(f"b{number}"))
    async with world.worker() as (queue, executor):
        await world.sent(2)
        await asyncio.sleep(0.05)  # it backs off
        if crashes:
            assert isinstance(queue.consumer._end, FakeConsumingEnd)
            queue.consumer._end.crash()
            await executor.abandon()
    world.api.own.clear()
    async with world.worker(2):
        assert (await world.dead()).attempts == world.api.own[SUBJECT]


@virtual
async def test_attempts_under_way_when_isolated_owners_crashed() -> None:
    subject = quality("a")
    world = World(CountingApi(instances={"a": "active"}))
    world.broker.isolated = {0}
    world.put([subject])
    world.api.hangs = True
    for number in (1, 2):
        async with world.worker(number) as (queue, executor):
            await world.sent(number, key_of(subject))
            assert isinstance(queue.consumer._end, FakeConsumingEnd)
            queue.consumer._end.crash()
            await executor.abandon()
    world.api.hangs = False
    world.api.reject = refuse(422, "invalid", key_of(subject))
    async with world.worker(3):
        dead = await world.dead(key_of(subject))
    assert dead.attempts == world.api.own[key_of(subject)] == 3
