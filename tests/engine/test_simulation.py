"""The sender against an API that fails at random: nothing lost, nothing doubled, nothing out of order."""

import asyncio
import random

from prefactor_core.api.replies import Reply
from prefactor_core.operations import Operation
from tests.support.bench import Bench, make_bench, running
from tests.support.fake_api import Chaos, FakeApi, page
from tests.support.operations import create, dice, finish, finish_span, quality, register, start
from tests.support.seeds import Seeds
from tests.support.virtual_time import run_virtual


def _lives(rng: random.Random, instances: int, spans: int) -> list[list[Operation]]:
    """Random instances, whose spans nest and overlap."""
    lives = []
    for number in range(instances):
        instance = f"i{number:03}"
        life = [register(instance), start(instance)]
        open_spans: list[str] = []
        for span_number in range(rng.randint(0, spans)):
            span = f"{instance}-span{span_number}"
            life.append(create(instance, span, rng.choice([None, *open_spans])))
            open_spans.append(span)
            if rng.random() < 0.3:
                life.append(quality(instance, span_number))
            while open_spans and rng.random() < 0.5:
                life.append(finish_span(instance, open_spans.pop(rng.randrange(len(open_spans)))))
        life += [finish_span(instance, span) for span in open_spans]
        lives.append([*life, finish(instance)])
    return lives


async def _put_mixed(bench: Bench, lives: list[list[Operation]], rng: random.Random, pause: float) -> None:
    """Put the lives in turns, as agents that run side by side do."""
    waiting = [list(reversed(life)) for life in lives]
    while waiting:
        life = rng.choice(waiting)
        await bench.put(life.pop())
        if not life:
            waiting.remove(life)
        if rng.random() < 0.3:
            await asyncio.sleep(rng.uniform(0, pause))


async def _run(seed: int, api: FakeApi, *, instances: int = 6, spans: int = 4) -> Bench:
    rng = dice(seed)
    bench = make_bench(api, seed=seed)
    api.latency = lambda: rng.uniform(0.001, 0.2)
    async with running(bench):
        await _put_mixed(bench, _lives(rng, instances, spans), rng, pause=2.0)
        await bench.settle(within=3600)
    return bench


def _check(bench: Bench) -> None:
    assert bench.problems() == []
    assert bench.dead == {}


def test_passing_faults_cost_nothing(seeds: Seeds) -> None:
    def check(seed: int) -> None:
        chaos = Chaos(dice(seed), lost_reply=0.1, error_500=0.1, throttle=0.05)
        _check(run_virtual(_run(seed, FakeApi(faults=chaos))))

    seeds.run(200, check)


def test_faults_that_come_and_go_and_then_stop(seeds: Seeds) -> None:
    async def weather(api: FakeApi, rng: random.Random) -> None:
        for _ in range(12):
            await asyncio.sleep(rng.uniform(1, 15))
            kind = rng.randrange(6)
            api.unavailable = kind == 0
            api.token = Reply(401, {"status": "error", "code": "unauthorized"}) if kind == 1 else None
            api.no_bulk = Reply(404) if kind == 2 else None
            api.most_items = rng.choice([1, 2, 5]) if kind == 3 else None
            api.ping_reply = Reply(502) if kind == 4 else None
            heavy = rng.uniform(0, 0.25)
            api.faults = Chaos(rng, heavy, heavy / 2, heavy / 2, heavy / 4, heavy / 4, heavy / 4)
            if kind == 5:
                api.faults = lambda _: page(503)
        api.unavailable, api.token, api.no_bulk, api.most_items = False, None, None, None
        api.ping_reply, api.faults = None, None

    async def program(seed: int) -> Bench:
        rng = dice(seed)
        api = FakeApi(latency=lambda: rng.uniform(0.001, 0.3))
        bench = make_bench(api, latch=False, seed=seed)
        async with running(bench):
            changes = asyncio.create_task(weather(api, rng))
            await _put_mixed(bench, _lives(rng, 12, 6), rng, pause=4.0)
            await changes
            await bench.settle(within=300)
        return bench

    seeds.run(40, lambda seed: _check(run_virtual(program(seed))))


def test_keys_that_expire_in_an_outage(seeds: Seeds) -> None:
    """What was done before the keys were forgotten is found out by its id or its state."""

    async def program(seed: int) -> Bench:
        rng = dice(seed)
        # A quality has only its key, so it is left out here.
        lives = [[one for one in life if "quality" not in one.type.value] for life in _lives(rng, 6, 5)]
        api = FakeApi(faults=Chaos(dice(seed), lost_reply=0.3))
        bench = make_bench(api, seed=seed)

        async def forget() -> None:
            while True:
                await asyncio.sleep(0.2)
                api.forget_keys()

        forgetting = asyncio.create_task(forget())
        async with running(bench):
            await _put_mixed(bench, lives, rng, pause=1.0)
            await bench.settle(within=3600)
        forgetting.cancel()
        assert bench.executor.account.overtaken > 0
        return bench

    seeds.run(10, lambda seed: _check(run_virtual(program(seed))))


def test_senders_that_are_ended_and_replaced_at_random(seeds: Seeds) -> None:
    """What the one gives back, the next carries out: once, and in order."""

    async def program(seed: int) -> Bench:
        rng = dice(seed)
        api = FakeApi(latency=lambda: rng.uniform(0.001, 0.5))
        api.faults = Chaos(dice(seed), lost_reply=0.1, error_500=0.1, half_done=0.1)
        bench = make_bench(api, seed=seed)
        agent = asyncio.create_task(_put_mixed(bench, _lives(rng, 8, 5), rng, pause=1.0))
        sender = bench
        for number in range(15):
            sender.executor.start()
            await asyncio.sleep(rng.uniform(0.1, 4))
            await sender.executor.abandon()
            sender.check_books()
            assert sender.executor.prefetched == 0
            sender = make_bench(api, seed=number, queue=bench.queue)
        await agent
        async with running(sender):
            await sender.settle(within=600)
        return bench

    seeds.run(30, lambda seed: _check(run_virtual(program(seed))))


def test_control_an_api_without_keys_doubles_effects() -> None:
    """The checker bites: the same runs on an API that ignores keys are found out."""
    doubled = []
    for seed in range(20):
        chaos = Chaos(dice(seed), lost_reply=0.2)
        bench = run_virtual(_run(seed, FakeApi(faults=chaos, ignore_keys=True)))
        doubled += [problem for problem in bench.problems() if problem.startswith("doubled")]
    assert doubled


def test_control_the_checker_sees_losses_and_disorder() -> None:
    bench = run_virtual(_run(1, FakeApi()))
    assert bench.problems() == []
    bench.api.effects[0], bench.api.effects[-1] = bench.api.effects[-1], bench.api.effects[0]
    del bench.api.effects[5]
    found = {problem.partition(":")[0] for problem in bench.problems()}
    assert {"lost", "out of order"} <= found


def test_a_large_run_travels_in_few_requests() -> None:
    async def program() -> Bench:
        rng = dice(7)
        bench = make_bench(FakeApi(latency=lambda: 0.02))
        async with running(bench):
            for life in _lives(rng, 200, 20):
                await bench.put(*life)
            await bench.settle(within=60)
        return bench

    bench = run_virtual(program())
    assert bench.problems() == []
    assert len(bench.put_so_far) > 3000
    assert len(bench.api.requests) < len(bench.put_so_far) / 20
