"""Rejected instances keep nobody else waiting, and a fault of the whole costs few dead letters."""

import asyncio
import itertools

import pytest

from prefactor_core.api.replies import Reply
from prefactor_core.execution.credit import CREDIT, GENERAL, RETRY_SECONDS, Credit
from prefactor_core.execution.handler import BatchLimits
from prefactor_core.execution.lanes import Lanes
from prefactor_core.execution.outcome import SETTLED, Apart
from prefactor_core.execution.retry import RetryPolicy
from tests.engine.setups import WIDE, carried_out
from tests.engine.test_lanes import Item, fill, names
from tests.engine.virtual import each, virtual
from tests.support.bench import Bench, make_bench, now, running
from tests.support.fake_api import FakeApi
from tests.support.operations import create, dice, finish, finish_span, life, quality, register, start
from tests.support.virtual_time import run_virtual

GOOD = 40
BEHIND = 30.0
"""Seconds that good instances may be behind what they would be alone."""


async def until(bench: Bench, keys: set[str], within: float) -> float:
    """Return the seconds until all these keys have had their effects."""
    began = now()
    async with asyncio.timeout(within):
        while not keys <= set(bench.api.done()):
            seen = len(bench.api.effects)
            while len(bench.api.effects) == seen:
                await asyncio.sleep(0.05)
    return now() - began


def longest_silence(bench: Bench, began: float) -> float:
    """Return the longest time without an effect, from the beginning on."""
    times = [began, *(effect.at for effect in bench.api.effects)]
    return max(later - earlier for earlier, later in itertools.pairwise(times))


def beside(bad: int, operations: int, *, registrations: bool) -> tuple[float, float, Bench]:
    """Run good instances behind bad ones; return the good ones' time, the longest silence and the bench."""

    async def program() -> tuple[float, float, Bench]:
        api = FakeApi(latency=lambda: 0.02)
        if registrations:
            api.reject = lambda one: (422, "invalid") if one.target.startswith("bad") else None
        bench = make_bench(api, num_workers=4)
        began = now()
        async with running(bench, stop_within=5):
            for number in range(bad):
                name = f"bad{number}"
                head = [register(name)] if registrations else []
                await bench.put(*head, *(create(name, f"{name}-{one}") for one in range(operations)))
            good = [life(f"good{number}", 3) for number in range(GOOD)]
            await bench.put_all(*good)
            took = await until(bench, {one.idempotency_key or "" for each in good for one in each}, 600)
        return took, longest_silence(bench, began), bench

    return run_virtual(program())


@pytest.mark.parametrize("registrations", [False, True], ids=["unknown", "refused"])
@pytest.mark.parametrize(("bad", "operations"), [(300, 1), (300, 20), (1000, 1)])
def test_good_instances_are_not_kept_waiting(bad: int, operations: int, *, registrations: bool) -> None:
    alone, _, _ = beside(0, 0, registrations=registrations)
    took, silence, _ = beside(bad, operations, registrations=registrations)
    assert took < alone + BEHIND
    assert silence < BEHIND


@each("bulk", [True, False])
async def test_a_general_fault_costs_twenty_dead_letters_and_then_only_probes(
    caplog: pytest.LogCaptureFixture, *, bulk: bool
) -> None:
    """As an account that does not exist."""
    caplog.clear()
    api = FakeApi(
        latency=lambda: 0.02, reject=lambda _: (404, "not_found"), no_bulk=None if bulk else Reply(404)
    )
    bench = make_bench(api, num_workers=10)
    async with running(bench):
        await bench.put_all(*(life(f"i{number}", 8) for number in range(100)))
        await asyncio.sleep(60)
        assert len(bench.dead) == CREDIT
        assert "404" in (bench.executor.holding or "")
        before = len(api.requests)
        await asyncio.sleep(100)
        assert len(bench.dead) == CREDIT
        probes = len(api.requests) - before
        assert 100 <= probes <= 100 / RETRY_SECONDS + 1 + (0 if bulk else 2)
        api.reject = lambda _: None
        mended = now()
        await bench.settle(within=120)
        assert bench.executor.holding is None
        assert api.effects[0].at - mended <= 1.0
    lost = {dead.item.instance_id for dead in bench.dead.values()}
    assert len(lost) <= CREDIT, "only what was rejected before, and its dependents"
    assert bench.problems() == []
    assert "none was taken in between" in caplog.text


@virtual
async def test_a_first_try_is_never_delayed() -> None:
    api = FakeApi(latency=lambda: 0.02)
    api.reject = lambda one: (404, "not_found") if one.instance.startswith("bad") else None
    bench = make_bench(api)
    async with running(bench, stop_within=1):
        await bench.put_all(*(life(f"bad{number}") for number in range(100)))
        await asyncio.sleep(60)
        assert len(bench.dead) == CREDIT
        await bench.put(*life("good"))
        assert await until(bench, {"good:finish"}, 10) < 1.0
        await asyncio.sleep(10)
        assert len(bench.dead) > CREDIT, "a success restores the credit"


@virtual
async def test_content_that_is_rejected_in_every_instance_is_believed() -> None:
    """The API knows these instances; and the next thing of each is rejected, so that nothing can succeed."""
    api = FakeApi(latency=lambda: 0.02)
    api.reject = lambda one: (422, "bad") if one.action == "agent_spans/create" else None
    bench = await carried_out(api, *(life(f"i{number}", 5)[:-1] for number in range(50)), within=60)
    assert len(bench.dead) == 50 * 10


@virtual
async def test_few_rejected_lanes_are_at_fault_themselves() -> None:
    """Nothing else is there to succeed, and what is rejected is not held for ever."""
    api = FakeApi(latency=lambda: 0.02)
    api.reject = lambda one: (422, "bad") if one.action == "agent_instances/register" else None
    bench = await carried_out(api, *(life(f"i{number}", 50) for number in range(GENERAL - 1)), within=60)
    assert bench.executor.account.dead_lettered == (GENERAL - 1) * 103


@pytest.mark.parametrize("bulk", [True, False], ids=["bulk", "single"])
@virtual
async def test_an_unknown_instance_is_lost_with_one_request(*, bulk: bool) -> None:
    operations = [
        create("a", "a-1"),
        create("a", "a-2"),
        finish_span("a", "a-1"),
        quality("a", 1),
        finish("a"),
    ]
    api = FakeApi()
    if not bulk:
        api.no_bulk = Reply(404)

    bench = await carried_out(api, [*life("b"), *operations])
    assert set(bench.dead) == {one.idempotency_key for one in operations}
    assert [request.keys for request in api.single_requests if "a" in request.instances] == [("a-1:create",)]
    assert bench.dead["a:finish"].reason.startswith("follows a lost operation: rejected: HTTP 404")


@virtual
async def test_a_finished_instance_is_lost_with_its_first_create() -> None:
    api = FakeApi()
    api.instances["a"] = "over"

    bench = await carried_out(api, [*(create("a", f"a-{number}") for number in range(10)), *life("b")])
    assert len(bench.dead) == 10
    assert sum("a" in request.instances for request in api.requests) == 1
    assert api.reads == ["/api/v1/agent_instance/a"]


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@virtual
async def test_not_found_below_a_parent_is_asked_after(*, known: bool) -> None:
    """The parent is not known, or the instance is not: only a read tells."""
    api = FakeApi()
    if known:
        api.instances["a"] = "active"

    bench = await carried_out(api, [create("a", "a-1", "a-0"), create("a", "a-2"), *life("b")])
    assert set(bench.dead) == ({"a-1:create"} if known else {"a-1:create", "a-2:create"})
    assert api.reads == ["/api/v1/agent_instance/a"]


@virtual
async def test_a_create_that_was_sent_before_and_is_refused_since_all_is_over_was_not_done() -> None:
    """While its key lives a repeat of what was done gets its first reply; this one was never done."""
    api = FakeApi()
    api.instances["a"] = "over"

    bench = make_bench(api)
    await bench.put(create("a", "a-1"), *life("b"))
    (await bench.waiting())[0].maybe_sent = True  # as a replayed dead letter, or one of a crashed worker
    async with running(bench):
        await bench.settle()
    assert bench.dead["a-1:create"].reason == "the instance is over: HTTP 409 invalid_action"
    assert bench.executor.account.overtaken == 0


def test_lanes_that_travel_alone_get_half_of_the_calls_while_others_wait() -> None:
    lanes: Lanes[Item] = Lanes(RetryPolicy(rng=dice(1)), lambda item: item.name[0], None, 4)
    few = BatchLimits(2, 1 << 40, 1)
    fill(lanes, "a1 b1 c1 d1")
    lanes.resolve(lanes.take(WIDE, 0), [Apart("x")] * 4, 0)
    fill(lanes, "k1 l1 m1 n1 o1 p1")
    out = [names(lanes.take(few, 0)) for _ in range(4)]
    assert sum(one[0] in "abcd" for one in out) == 2
    lanes = Lanes(RetryPolicy(rng=dice(1)), lambda item: item.name[0], None, 4)
    fill(lanes, "a1 b1 c1 d1")
    lanes.resolve(lanes.take(WIDE, 0), [Apart("x")] * 4, 0)
    assert all(names(lanes.take(few, 0)) for _ in range(4)), "they have all calls where nobody else waits"


def test_one_call_at_a_time_is_shared_in_turns() -> None:
    lanes: Lanes[Item] = Lanes(RetryPolicy(rng=dice(1)), lambda item: item.name[0], None, 1)
    few = BatchLimits(1, 1 << 40, 1)
    fill(lanes, "a1 a2 a3")
    lanes.resolve(lanes.take(few, 0), [Apart("x")], 0)
    turns = ""
    for number in range(8):
        fill(lanes, f"k{number}")
        batch = lanes.take(few, 0)
        turns += names(batch)[0]
        lanes.resolve(batch, [SETTLED] if turns[-1] == "k" else [Apart("x")], 0)
    assert turns.count("a") >= 3
    assert turns.count("k") >= 3


def test_credit_is_spent_and_restored() -> None:
    credit: Credit[str] = Credit()
    assert all(credit.spend(f"lane {number}", 0) for number in range(CREDIT))
    assert not credit.spend("another", 0)
    credit.hold("another", "no", 0)
    assert credit.general
    assert credit.retry(RETRY_SECONDS / 2, lambda _: False) == []
    assert credit.retry(RETRY_SECONDS, lambda _: False) == ["another"]
    credit.hold("another", "no", 1)
    assert credit.restore(2) == (["another"], False), "there was no success before"
    assert credit.spend("another", 2)
    assert credit.restore(2.5) == ([], True), "the one before was only a moment ago"


@virtual
async def test_lanes_that_are_held_are_given_back_with_the_rest() -> None:
    api = FakeApi(reject=lambda _: (404, "not_found"))
    bench = make_bench(api)
    bench.executor.start()
    await bench.put_all(*(life(f"i{number}") for number in range(50)))
    await asyncio.sleep(10)
    began = now()
    assert not await bench.executor.stop(30)
    assert now() - began < 10, "nothing that is left could be taken"
    bench.check_books()
    assert bench.executor.account.released == 50 * 5 - CREDIT


@virtual
async def test_a_success_that_lanes_are_held_behind_believes_what_was_rejected_just_before() -> None:
    """Between two successes a moment apart the endpoint was right: those lanes need no further request."""
    api = FakeApi(latency=lambda: 0.02)
    bench = make_bench(api, num_workers=4)
    async with running(bench, stop_within=1):
        await bench.put(register("good"), start("good"))
        for number in range(60):
            await bench.put(quality("good", number))
            await asyncio.sleep(0.1)
            if number == 10:
                await bench.put(*(create(f"bad{bad}", f"bad{bad}-1") for bad in range(30)))
        assert bench.executor.account.dead_lettered == 30
        singles = [one for request in api.single_requests for one in request.instances if "bad" in one]
        assert len(singles) <= 33, "one request for each, and a retry or two before the success came"


@virtual
async def test_what_lost_its_instance_is_tried_again_when_it_comes_back_behind_held_operations() -> None:
    """A replayed registration must not be doomed by the loss that it is to mend."""
    api = FakeApi(latency=lambda: 0.02)
    bench = make_bench(api)
    async with running(bench, stop_within=1):
        await bench.put(*(create("a", f"a-{number}") for number in range(3)))
        await bench.put(*(create(f"bad{number}", f"bad{number}-1") for number in range(40)))
        await asyncio.sleep(3)
        await bench.put(register("a"), start("a"), *life("b"))
        await asyncio.sleep(10)
        assert {"a:register", "a:starting"} <= set(api.done())


@each("num_workers", [1, 4])
def test_lanes_that_travel_alone_are_not_starved_by_new_bad_ones(num_workers: int) -> None:
    lanes: Lanes[Item] = Lanes(RetryPolicy(rng=dice(1)), lambda item: item.name, None, num_workers)
    fill(lanes, "good")
    lanes.resolve(lanes.take(WIDE, 0), [Apart("x")], 0)
    served = False
    for number in range(50):
        fill(lanes, f"bad{number}")
        batch = lanes.take(BatchLimits(1, 1 << 40, 1), 0)
        served = served or names(batch) == "good"
        lanes.resolve(batch, [SETTLED if names(batch) == "good" else Apart("x")], 0)
    assert served
