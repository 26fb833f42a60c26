"""The breaker's health: what counts as an attempt, who waits, who asks, and what ends it all."""

import asyncio
import itertools
from collections import deque

import pytest

from prefactor_core.api.circuit_breaker import CircuitBreaker, Permit
from prefactor_core.api.endpoint import Endpoint
from prefactor_core.api.replies import Reply
from prefactor_core.exceptions import OperationError, PrefactorTelemetryFailureError
from prefactor_core.execution.retry import RetryPolicy
from tests.engine.setups import check_all_done
from tests.engine.virtual import each, virtual
from tests.support.bench import make_bench, now, running
from tests.support.fake_api import FakeApi, Request, error_body, page, refused_connection, status
from tests.support.operations import create, dice, life, quality

_DOWN = Reply(None, failure="ConnectError", reached=False)
_BROKEN = Reply(500, error_body("internal_error"))
_PONG = Reply(200, {"status": "success"})
_ENDPOINT = Endpoint("https://there")


class Pings:
    """Answers pings and counts them."""

    def __init__(self) -> None:
        self.reply = _PONG
        self.at: list[float] = []

    async def __call__(self) -> Reply:
        self.at.append(now())
        await asyncio.sleep(0.01)
        return self.reply


def pinged(*, latch: bool = False, endpoint: Endpoint = _ENDPOINT) -> tuple[CircuitBreaker, Pings]:
    pings = Pings()
    return CircuitBreaker(pings, RetryPolicy(rng=dice(1)), latch=latch, endpoint=endpoint), pings


async def fail(
    breaker: CircuitBreaker, lane: str = "a", reply: Reply = _BROKEN, *, first: bool = False
) -> float:
    """Have a request of a lane fail, and return what that counts for."""
    async with breaker.permit() as permit:
        return await breaker.failed(permit, reply, [lane], first=first)


async def fail_beside_a_success(breaker: CircuitBreaker, *, first: bool) -> float:
    async with breaker.permit() as permit:
        await asyncio.sleep(0.1)
        breaker.succeeded(first=False)
        return await breaker.failed(permit, _BROKEN, ["a"], first=first)


async def sent_at(breaker: CircuitBreaker) -> float:
    async with breaker.permit() as permit:
        return permit.since


async def is_trial(breaker: CircuitBreaker) -> bool:
    async with breaker.permit() as permit:
        return permit.probe


@virtual
async def test_a_failure_is_an_attempt_only_where_the_endpoint_is_well() -> None:
    breaker, pings = pinged()
    assert await fail(breaker) == pytest.approx(1.0), "it answers pings"
    assert len(pings.at) == 1
    breaker, pings = pinged()
    assert await fail_beside_a_success(breaker, first=False) == pytest.approx(1.0), "a success since is proof"
    assert pings.at == []
    breaker, pings = pinged()
    pings.reply = _DOWN
    assert await fail(breaker, reply=_DOWN, first=True) == 0.0, "it is unavailable"
    assert len(pings.at) == 1
    breaker, pings = pinged()
    breaker.succeeded(first=False)
    await asyncio.sleep(0.1)
    pings.reply = _DOWN
    assert await fail(breaker) == 0.0, "a success before is no proof"


@virtual
async def test_failing_often_makes_a_failure_count_for_less_and_successes_mend_it() -> None:
    breaker, pings = pinged()
    weights = [await fail_beside_a_success(breaker, first=True) for _ in range(40)]
    assert weights == sorted(weights, reverse=True)
    assert weights[0] < 1
    assert 0.15 < weights[-1] < 0.25, "it never counts for nothing"
    for _ in range(40):
        breaker.succeeded(first=True)
    assert await fail_beside_a_success(breaker, first=False) == pytest.approx(1.0)
    assert pings.at == []


@virtual
async def test_one_asks_while_the_others_wait_with_growing_patience_under_a_cap() -> None:
    breaker, pings = pinged()
    pings.reply = _DOWN
    await fail(breaker, reply=_DOWN, first=True)
    waiters = [asyncio.create_task(sent_at(breaker)) for _ in range(20)]
    await asyncio.sleep(600)
    gaps = [later - earlier for earlier, later in itertools.pairwise(pings.at)]
    assert max(gaps) <= 10.02
    assert min(gaps) >= 0.009, "two were asking at once"
    assert 60 <= len(gaps) < 200, "waits did not grow"
    pings.reply = _PONG
    back = now()
    assert max(await asyncio.gather(*waiters)) - back <= 10.05


@virtual
async def test_a_waiter_that_is_cancelled_passes_the_asking_on() -> None:
    breaker, pings = pinged()
    pings.reply = _DOWN
    await fail(breaker, reply=_DOWN, first=True)
    first, second = (asyncio.create_task(sent_at(breaker)) for _ in range(2))
    await asyncio.sleep(30)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    pings.reply = _PONG
    async with asyncio.timeout(11):
        await second


@virtual
async def test_writes_that_fail_for_everybody_are_an_outage_whatever_pings_say() -> None:
    breaker, pings = pinged()
    weights = []
    for lane in "abca":
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
    assert not await is_trial(breaker)
    assert len(pings.at) > 5


@virtual
async def test_one_lane_that_keeps_failing_is_no_outage() -> None:
    breaker, pings = pinged()
    for number in range(10):
        assert await fail(breaker) > 0
        assert len(pings.at) == number + 1


@virtual
async def test_only_one_trial_at_a_time() -> None:
    breaker, _ = pinged()
    for lane in "abcd":
        await fail(breaker, lane)
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


@each("code", [401, 403])
async def test_a_token_that_a_ping_confirms_to_be_bad_is_final(code: int) -> None:
    breaker, pings = pinged(latch=True)
    pings.reply = Reply(code, error_body("unauthorized"))
    async with breaker.permit() as permit:
        with pytest.raises(PrefactorTelemetryFailureError) as caught:
            await breaker.refused(permit, pings.reply, "CREATE_SPAN")
    assert caught.value.operation_type == "CREATE_SPAN"
    assert str(caught.value) == (
        f"prefactor: the API at https://there refuses the token (HTTP {code} unauthorized): check api_token "
        "(PREFACTOR_API_TOKEN), and that api_url (PREFACTOR_API_URL) is the API of its account, or create a "
        "new token"
    )
    cause = caught.value.cause
    assert isinstance(cause, OperationError)
    assert (cause.status_code, cause.code, cause.operation_type) == (code, "unauthorized", "CREATE_SPAN")
    with pytest.raises(PrefactorTelemetryFailureError):
        await breaker.check()


_AWAY = "is unavailable, and everything waits for it"
_STRANGER = "this does not look like the Prefactor API: check api_url (PREFACTOR_API_URL)"
SAID = [
    (_DOWN, f"{_AWAY}: ConnectError; check scheme, host and port in api_url (PREFACTOR_API_URL), and the"),
    (Reply(200), f"{_AWAY}: HTTP 200 without the API's JSON; {_STRANGER}"),
    (Reply(404), f"{_AWAY}: HTTP 404 without the API's JSON; {_STRANGER}"),
    (Reply(404, {"error": "what?"}), f"{_AWAY}: HTTP 404; {_STRANGER}"),
    (Reply(403), f"{_AWAY}: HTTP 403 without the API's JSON; {_STRANGER}"),
    (Reply(301), "; it redirects: in api_url (PREFACTOR_API_URL) give the URL where that ends"),
    (Reply(502), "; a proxy answers for it, or something else is there: check api_url"),
    (_BROKEN, f"{_AWAY}: HTTP 500 internal_error; the API itself says so"),
    (Reply(404, error_body("not_found")), f"{_AWAY}: HTTP 404 not_found; check api_url (PREFACTOR_API_URL)"),
    (Reply(401, error_body("no")), "refuses the token (HTTP 401 no), and nothing is sent until it takes it"),
]


@virtual
async def test_the_log_names_the_url_and_what_to_check(
    subtests: pytest.Subtests, caplog: pytest.LogCaptureFixture
) -> None:
    for reply, words in SAID:
        caplog.clear()
        breaker, pings = pinged()
        pings.reply = reply
        await breaker.check()
        pings.reply = _PONG
        await breaker.wait()
        with subtests.test(words):
            unavailable, back = caplog.messages
            assert unavailable.startswith("prefactor: the API at https://there ")
            assert words in unavailable
            assert back == "prefactor: the API at https://there is back, after 1 probes"


@virtual
async def test_the_reason_is_what_the_request_met_unless_the_token_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for ping in (_DOWN, Reply(401, error_body("unauthorized"))):
        breaker, pings = pinged(endpoint=Endpoint("https://there", "--url", "--token"))
        pings.reply = ping
        await fail(breaker)
    unavailable, refused = caplog.messages
    assert f"{_AWAY}: HTTP 500 internal_error; the API itself says so" in unavailable
    assert "refuses the token (HTTP 401 unauthorized), and nothing is sent until it takes it: " in refused
    assert refused.endswith(
        ": check --token, and that --url is the API of its account, or create a new token"
    )


@virtual
async def test_anything_else_that_a_ping_says_is_an_outage() -> None:
    for ping in (Reply(401), Reply(403), Reply(500), _DOWN, Reply(200), Reply(429)):
        breaker, pings = pinged(latch=True)
        pings.reply = ping
        async with breaker.permit() as permit:
            refusal = Reply(401, error_body("unauthorized"))
            assert not await breaker.refused(permit, refusal, "CREATE_SPAN"), ping
        pings.reply = _PONG
        assert not await is_trial(breaker), ping


@virtual
async def test_a_throttle_holds_everybody_for_the_longest_that_was_asked() -> None:
    breaker, _ = pinged()
    began = now()
    breaker.throttled(Permit(since=0.0), 20)
    breaker.throttled(Permit(since=0.0), 5)
    sending = [asyncio.create_task(sent_at(breaker)) for _ in range(3)]
    await asyncio.sleep(10)
    breaker.throttled(Permit(since=0.0), 40)
    assert [await one - began for one in sending] == [50, 50, 50]


@virtual
async def test_a_throttled_trial_holds_those_that_wait_for_it_too() -> None:
    breaker, _ = pinged()
    for lane in "abcd":
        await fail(breaker, lane)
    held: list[float] = []

    async def send() -> None:
        async with breaker.permit() as permit:
            if not held:
                breaker.throttled(permit, 60)
                held.append(now() + 60)
                return
            assert permit.since >= held[0], "sent in spite of Retry-After"
            breaker.succeeded(first=True)

    await asyncio.gather(*(send() for _ in range(3)))


# -- the same, end to end


@virtual
async def test_an_outage_of_hours_costs_no_attempt() -> None:
    api = FakeApi(unavailable=True, latency=lambda: 0.01)
    bench = make_bench(api, max_retries=0)
    async with running(bench):
        await bench.put_all(*(life(f"i{number}") for number in range(50)))
        await asyncio.sleep(4 * 3600)
        assert len(api.requests) <= 3
        assert 1400 < len(api.pings) < 6000
        api.unavailable = False
        back = now()
        await bench.settle(within=90)
        assert api.effects[0].at - back <= 10.1
    check_all_done(bench)


@each("fault", [status(500), page(502), status(503)])
async def test_writes_failing_for_everybody_cost_no_attempt_beyond_the_first_few(fault: object) -> None:
    api = FakeApi(latency=lambda: 0.01, faults=lambda _: fault)  # type: ignore[arg-type,return-value]
    bench = make_bench(api)
    async with running(bench):
        await bench.put_all(*(life(f"i{number}") for number in range(20)))
        await asyncio.sleep(3600)
        assert len(api.requests) < 900
        api.faults = None
        await bench.settle(within=120)
    check_all_done(bench)


@each("code, reason", [(422, "rejected"), (403, "not allowed")])
async def test_what_is_refused_after_an_outage_of_writes_does_not_wait_for_ever(
    code: int, reason: str
) -> None:
    """Only three operations are left, all of them bad: no success will ever come to end the pause."""
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
    assert {dead.reason.partition(":")[0] for dead in bench.dead.values()} == {reason}


@virtual
async def test_what_was_done_before_ends_a_pause_too() -> None:
    """Repeats after the keys have expired are answered 409: a write that is answered well."""
    api = FakeApi(no_bulk=Reply(404), latency=lambda: 0.01)
    api.instances["a"] = "active"
    api.spans.update({f"a-{number}": "active" for number in range(60)})
    bench = make_bench(api, num_workers=1)
    await bench.put(*(create("a", f"a-{number}") for number in range(60)))
    for delivery in await bench.waiting():
        delivery.maybe_sent = True
    breaker = bench.breaker
    for lane in "wxyz":
        await fail(breaker, lane)
    async with running(bench):
        await bench.settle(within=60)
        assert not await is_trial(breaker)
    assert bench.executor.account.overtaken == 60


@virtual
async def test_an_api_that_comes_back_only_for_pings_is_tried_by_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
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
    check_all_done(bench)
    assert "answers pings, and no write" in caplog.text
