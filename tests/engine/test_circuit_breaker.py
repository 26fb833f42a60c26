"""The breaker's health: what counts as an attempt, who waits, who asks, and what ends it all."""

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Callable

import pytest

from prefactor_core.api.circuit_breaker import CircuitBreaker, Permit
from prefactor_core.api.replies import Reply
from prefactor_core.exceptions import PrefactorTelemetryFailureError
from prefactor_core.execution.retry import RetryPolicy
from tests.support.bench import make_bench, now, running
from tests.support.fake_api import FakeApi, Request, error_body, page, refused_connection, status
from tests.support.operations import create, dice, life, quality
from tests.support.virtual_time import run_virtual

_DOWN = Reply(None, failure="ConnectError", reached=False)
_BROKEN = Reply(500, error_body("internal_error"))
_PONG = Reply(200, {"status": "success"})


class Pings:
    """Answers pings and counts them."""

    def __init__(self, reply: Reply = _PONG) -> None:
        self.reply = reply
        self.at: list[float] = []

    async def __call__(self) -> Reply:
        self.at.append(now())
        await asyncio.sleep(0.01)
        return self.reply


def check(program: Callable[[CircuitBreaker, Pings], Awaitable[None]], *, latch: bool = False) -> None:
    async def whole() -> None:
        pings = Pings()
        await program(CircuitBreaker(pings, RetryPolicy(rng=dice(1)), latch=latch), pings)

    run_virtual(whole())


def test_a_failure_at_an_endpoint_that_answers_pings_is_an_attempt() -> None:
    async def program(breaker: CircuitBreaker, pings: Pings) -> None:
        async with breaker.permit() as permit:
            assert await breaker.failed(permit, _BROKEN, ["a"], first=False) == pytest.approx(1.0)
        assert len(pings.at) == 1

    check(program)


def test_a_success_since_is_proof_enough() -> None:
    async def program(breaker: CircuitBreaker, pings: Pings) -> None:
        async with breaker.permit() as permit:
            await asyncio.sleep(0.1)
            breaker.succeeded(first=False)
            assert await breaker.failed(permit, _BROKEN, ["a"], first=False) == pytest.approx(1.0)
        assert pings.at == []

    check(program)


def test_a_success_before_is_no_proof() -> None:
    async def program(breaker: CircuitBreaker, pings: Pings) -> None:
        breaker.succeeded(first=False)
        await asyncio.sleep(0.1)
        pings.reply = _DOWN
        async with breaker.permit() as permit:
            assert await breaker.failed(permit, _BROKEN, ["a"], first=False) == 0.0

    check(program)


def test_a_failure_at_an_endpoint_that_is_away_is_none() -> None:
    async def program(breaker: CircuitBreaker, pings: Pings) -> None:
        pings.reply = _DOWN
        async with breaker.permit() as permit:
            assert await breaker.failed(permit, _DOWN, ["a"], first=True) == 0.0
        assert len(pings.at) == 1

    check(program)


def test_failing_often_makes_a_failure_count_for_less_and_successes_mend_it() -> None:
    async def program(breaker: CircuitBreaker, pings: Pings) -> None:
        weights = []
        for _ in range(40):
            async with breaker.permit() as permit:
                await asyncio.sleep(0.1)
                breaker.succeeded(first=False)
                weights.append(await breaker.failed(permit, _BROKEN, ["a"], first=True))
        assert weights == sorted(weights, reverse=True)
        assert weights[0] < 1
        assert 0.15 < weights[-1] < 0.25, "it never counts for nothing"
        for _ in range(40):
            breaker.succeeded(first=True)
        async with breaker.permit() as permit:
            await asyncio.sleep(0.1)
            breaker.succeeded(first=False)
            assert await breaker.failed(permit, _BROKEN, ["a"], first=False) == pytest.approx(1.0)
        assert pings.at == []

    check(program)


def test_one_asks_while_the_others_wait_with_growing_patience_under_a_cap() -> None:
    async def program(breaker: CircuitBreaker, pings: Pings) -> None:
        pings.reply = _DOWN
        async with breaker.permit() as permit:
            await breaker.failed(permit, _DOWN, ["a"], first=True)

        async def send() -> float:
            async with breaker.permit() as permit:
                return permit.since

        waiters = [asyncio.create_task(send()) for _ in range(20)]
        await asyncio.sleep(600)
        gaps = [later - earlier for earlier, later in itertools.pairwise(pings.at)]
        assert max(gaps) <= 10.02
        assert min(gaps) >= 0.009, "two were asking at once"
        assert 60 <= len(gaps) < 200, "waits did not grow"
        pings.reply = _PONG
        back = now()
        turns = await asyncio.gather(*waiters)
        assert max(turns) - back <= 10.05

    check(program)


def test_a_waiter_that_is_cancelled_passes_the_asking_on() -> None:
    async def program(breaker: CircuitBreaker, pings: Pings) -> None:
        pings.reply = _DOWN
        async with breaker.permit() as permit:
            await breaker.failed(permit, _DOWN, ["a"], first=True)

        async def send() -> None:
            async with breaker.permit():
                pass

        first, second = asyncio.create_task(send()), asyncio.create_task(send())
        await asyncio.sleep(30)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        pings.reply = _PONG
        async with asyncio.timeout(11):
            await second

    check(program)


def test_writes_that_fail_for_everybody_are_an_outage_whatever_pings_say() -> None:
    async def program(breaker: CircuitBreaker, pings: Pings) -> None:
        weights = []
        for lane in ("a", "b", "c", "a"):
            async with breaker.permit() as permit:
                assert not permit.probe
                weights.append(await breaker.failed(permit, _BROKEN, [lane], first=False))
        assert [weight > 0 for weight in weights] == [True, True, True, False]
        for _ in range(5):
            async with breaker.permit() as permit:
                assert permit.probe
                assert await breaker.failed(permit, _BROKEN, ["a"], first=False) == 0.0
        async with breaker.permit() as permit:
            assert permit.probe
            breaker.succeeded(first=False)
        async with breaker.permit() as permit:
            assert not permit.probe
        assert len(pings.at) > 5

    check(program)


def test_one_lane_that_keeps_failing_is_no_outage() -> None:
    async def program(breaker: CircuitBreaker, pings: Pings) -> None:
        for number in range(10):
            async with breaker.permit() as permit:
                assert await breaker.failed(permit, _BROKEN, ["a"], first=False) > 0
            assert len(pings.at) == number + 1

    check(program)


def test_only_one_trial_at_a_time() -> None:
    async def program(breaker: CircuitBreaker, _: Pings) -> None:
        for lane in "abcd":
            async with breaker.permit() as permit:
                await breaker.failed(permit, _BROKEN, [lane], first=False)
        under_way = 0

        async def send(number: int) -> None:
            nonlocal under_way
            async with breaker.permit() as permit:
                if permit.probe:
                    under_way += 1
                    assert under_way == 1
                    await asyncio.sleep(1)
                    under_way -= 1
                    if number < 5:
                        await breaker.failed(permit, _BROKEN, ["a"], first=False)
                    else:
                        breaker.succeeded(first=False)

        await asyncio.gather(*(send(number) for number in range(10)))

    check(program)


@pytest.mark.parametrize("code", [401, 403])
def test_a_token_that_a_ping_confirms_to_be_bad_is_final(code: int) -> None:
    refusal = Reply(code, error_body("unauthorized"))

    async def program(breaker: CircuitBreaker, pings: Pings) -> None:
        pings.reply = refusal
        async with breaker.permit() as permit:
            with pytest.raises(PrefactorTelemetryFailureError) as caught:
                await breaker.refused(permit, refusal, "CREATE_SPAN")
        assert caught.value.operation_type == "CREATE_SPAN"
        with pytest.raises(PrefactorTelemetryFailureError):
            await breaker.check()

    check(program, latch=True)


@pytest.mark.parametrize("ping", [Reply(401), Reply(403), Reply(500), _DOWN, Reply(200), Reply(429)])
def test_anything_else_that_a_ping_says_is_an_outage(ping: Reply) -> None:
    async def program(breaker: CircuitBreaker, pings: Pings) -> None:
        pings.reply = ping
        async with breaker.permit() as permit:
            assert not await breaker.refused(permit, Reply(401, error_body("unauthorized")), "CREATE_SPAN")
        pings.reply = _PONG
        async with breaker.permit() as permit:
            assert not permit.probe

    check(program, latch=True)


_TURN = Permit(since=0.0)


def test_a_throttle_holds_everybody_for_the_longest_that_was_asked() -> None:
    async def program(breaker: CircuitBreaker, _: Pings) -> None:
        began = now()
        breaker.throttled(_TURN, 20)
        breaker.throttled(_TURN, 5)

        async def send() -> float:
            async with breaker.permit() as permit:
                return permit.since

        sending = [asyncio.create_task(send()) for _ in range(3)]
        await asyncio.sleep(10)
        breaker.throttled(_TURN, 40)
        assert [await one - began for one in sending] == [50, 50, 50]

    check(program)


def test_a_throttled_trial_holds_those_that_wait_for_it_too() -> None:
    async def program(breaker: CircuitBreaker, _: Pings) -> None:
        for lane in "abcd":
            async with breaker.permit() as permit:
                await breaker.failed(permit, _BROKEN, [lane], first=False)
        held: list[float] = []
        first = True

        async def send() -> None:
            nonlocal first
            async with breaker.permit() as permit:
                if first:
                    first = False
                    breaker.throttled(permit, 60)
                    held.append(now() + 60)
                    return
                assert permit.since >= held[0], "sent in spite of Retry-After"
                breaker.succeeded(first=True)

        await asyncio.gather(*(send() for _ in range(3)))

    check(program)


# -- the same, end to end


def test_an_outage_of_hours_costs_no_attempt() -> None:
    async def program() -> None:
        api = FakeApi(away=True, latency=lambda: 0.01)
        bench = make_bench(api, max_retries=0)
        async with running(bench):
            await bench.put_all(*(life(f"i{number}") for number in range(50)))
            await asyncio.sleep(4 * 3600)
            assert len(api.requests) <= 3
            assert 1400 < len(api.pings) < 6000
            api.away = False
            back = now()
            await bench.settle(within=90)
            assert api.effects[0].at - back <= 10.1
        assert bench.dead == {}
        assert bench.problems() == []

    run_virtual(program())


@pytest.mark.parametrize("fault", [status(500), page(502), status(503)])
def test_writes_failing_for_everybody_cost_no_attempt_beyond_the_first_few(fault: object) -> None:
    async def program() -> None:
        api = FakeApi(latency=lambda: 0.01, faults=lambda _: fault)  # type: ignore[arg-type,return-value]
        bench = make_bench(api)
        async with running(bench):
            await bench.put_all(*(life(f"i{number}") for number in range(20)))
            await asyncio.sleep(3600)
            assert len(api.requests) < 900
            api.faults = None
            await bench.settle(within=120)
        assert bench.dead == {}
        assert bench.problems() == []

    run_virtual(program())


@pytest.mark.parametrize("bulk", [True, False], ids=["bulk", "single"])
def test_a_wrong_account_costs_twenty_dead_letters(caplog: pytest.LogCaptureFixture, *, bulk: bool) -> None:
    async def program() -> None:
        api = FakeApi(no_bulk=None if bulk else Reply(404), latency=lambda: 0.01)
        api.reject = lambda _: (404, "not_found")
        bench = make_bench(api)
        async with running(bench):
            await bench.put_all(*(life(f"i{number}") for number in range(30)))
            await asyncio.sleep(3600)
            assert len(bench.dead) == 20
            assert len(api.requests) <= 5 * 3600 + 100, "held lanes are retried five times a second"
            api.reject = lambda _: None
            await bench.settle(within=120)
        lost = {letter.item.instance_id for letter in bench.dead.values()}
        assert len(lost) <= 20, "what was rejected before, and by now its dependents"
        assert bench.problems() == []

    run_virtual(program())
    assert "none was taken in between" in caplog.text


@pytest.mark.parametrize(("code", "reason"), [(422, "rejected"), (403, "not allowed")])
def test_what_is_refused_after_an_outage_of_writes_does_not_wait_for_ever(code: int, reason: str) -> None:
    """Only three operations are left, all of them bad: no success will ever come to end the pause."""

    async def program() -> None:
        broken = True

        def faults(_: Request) -> object:
            return status(500) if broken else status(code)

        api = FakeApi(faults=faults, latency=lambda: 0.01)  # type: ignore[arg-type]
        bench = make_bench(api)
        async with running(bench, stop_within=1):
            await bench.put(*(quality(instance, 1) for instance in "abc"))
            await asyncio.sleep(120)
            assert bench.dead == {}
            broken = False
            await bench.settle(within=600)
        assert {letter.reason.partition(":")[0] for letter in bench.dead.values()} == {reason}

    run_virtual(program())


def test_what_was_done_before_ends_a_pause_too() -> None:
    """Repeats after the keys have expired are answered 409: a write that is answered well."""

    async def program() -> None:
        api = FakeApi(no_bulk=Reply(404), latency=lambda: 0.01)
        api.instances["a"] = "active"
        api.spans.update({f"a-{number}": "active" for number in range(60)})
        bench = make_bench(api, num_workers=1)
        await bench.put(*(create("a", f"a-{number}") for number in range(60)))
        for delivery in bench.queue._waiting:
            delivery.maybe_sent = True
        breaker = bench.breaker
        for lane in "wxyz":
            async with breaker.permit() as permit:
                await breaker.failed(permit, _BROKEN, [lane], first=False)
        async with running(bench):
            await bench.settle(within=60)
            async with breaker.permit() as permit:
                assert not permit.probe
        assert bench.executor.account.overtaken == 60

    run_virtual(program())


def test_an_api_that_comes_back_only_for_pings_is_tried_by_one(caplog: pytest.LogCaptureFixture) -> None:
    async def program() -> None:
        api = FakeApi(script=deque(), latency=lambda: 0.5)
        api.faults = lambda _: refused_connection()
        bench = make_bench(api)
        async with running(bench):
            await bench.put_all(*(life(f"i{number}") for number in range(9)))
            await asyncio.sleep(300)
            api.most_at_once = 0
            await asyncio.sleep(300)
            assert api.most_at_once == 1
            api.faults = None
            await bench.settle()
        assert bench.problems() == []
        assert bench.dead == {}

    run_virtual(program())
    assert "answers pings, and no write" in caplog.text
