"""Replies that were cut off as too large: what was sent may have happened, and nobody is to blame."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable

import pytest

from prefactor_core.api.replies import Reply
from tests.engine.setups import check_all_done
from tests.engine.virtual import each, virtual
from tests.support.bench import Bench, make_bench, running
from tests.support.fake_api import FakeApi, Fault, Request
from tests.support.operations import create, life
from tests.support.virtual_time import run_virtual

EVERYTHING = 1 << 30


def cut_off(status: int = 200, retry_after: float = 0.0, effect: int = EVERYTHING) -> Fault:
    reply = Reply(status, failure="it is larger than 64 MiB", too_large=True, retry_after=retry_after)
    return Fault(reply, effect)


def above(most: int) -> Callable[[Request], Fault | None]:
    """Replies that speak of more operations than ``most`` are too large."""
    return lambda request: cut_off() if len(request.keys) > most else None


def run(bench: Bench, *, within: float = 600.0) -> Bench:
    async def program() -> None:
        async with running(bench):
            await bench.put_all(life("a", 20), life("b", 3), life("c"))
            await bench.settle(within)

    run_virtual(program())
    return bench


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "too large" in record.getMessage()]


@pytest.mark.parametrize("most", [1, 3, 10])
def test_a_bulk_request_with_too_large_a_reply_is_split_at_once_and_costs_no_attempt(
    most: int, caplog: pytest.LogCaptureFixture
) -> None:
    bench = run(make_bench(FakeApi(faults=above(most)), max_retries=0))
    check_all_done(bench)
    assert bench.executor.account.retried == 0
    assert bench.api.requests[-1].at - bench.api.requests[0].at < 1, "nothing backs off"
    refused = [request for request in bench.api.requests if len(request.keys) > most]
    assert len(refused) > 1
    assert len(said(caplog)) == 1


def test_what_was_in_a_bulk_request_whose_reply_was_cut_off_may_have_happened() -> None:
    """Its keys have expired when it is sent again: the conflicts are its own."""
    api = FakeApi()

    def faults(request: Request) -> Fault | None:
        api.forget_keys()
        return above(3)(request)

    api.faults = faults
    bench = run(make_bench(api))
    check_all_done(bench)
    assert bench.executor.account.overtaken == len(bench.put_so_far)


def test_the_control_without_a_mark_those_conflicts_would_be_dead_letters() -> None:
    def refused(request: Request) -> Fault | None:
        api.forget_keys()
        return Fault(Reply(413), EVERYTHING) if len(request.keys) > 3 else None

    api = FakeApi(faults=refused)  # an API that refuses a request and carries it out all the same
    assert run(make_bench(api)).dead != {}


def test_an_operation_whose_own_reply_is_too_large_ends_as_a_dead_letter_and_no_other() -> None:
    api = FakeApi(faults=lambda request: cut_off() if "b-span1:create" in request.keys else None)
    bench = run(make_bench(api))
    assert set(bench.dead) == {"b-span1:create", "b-span1:finish"}
    reason = bench.dead["b-span1:create"].reason
    assert reason.startswith("failed after ")
    assert "HTTP 200, and its body was not read: it is larger than 64 MiB" in reason
    assert len(api.single_requests) > 3, "it was tried alone, and each time was an attempt"
    assert bench.problems() == []


@each("bulk", [True, False])
def test_an_error_with_too_large_a_body_means_what_its_status_means(*, bulk: bool) -> None:
    for fault in (cut_off(429, retry_after=30, effect=0), cut_off(503, retry_after=30, effect=0)):
        api = FakeApi(script=deque([fault]), no_bulk=None if bulk else Reply(404))
        bench = run(make_bench(api))
        check_all_done(bench)
        writes = api.requests if bulk else api.single_requests
        repeats = [write for write in writes if writes[0].keys[0] in write.keys]
        assert repeats[1].at - repeats[0].at >= 30


@virtual
async def test_it_is_said_once_until_requests_of_any_size_get_through(
    caplog: pytest.LogCaptureFixture,
) -> None:
    api = FakeApi(faults=above(3))
    api.instances["a"] = "active"
    bench = make_bench(api)
    number = 0

    async def ten_minutes() -> None:
        nonlocal number
        for _ in range(20):
            await bench.put(*(create("a", f"a-{number + index}") for index in range(10)))
            number += 10
            await asyncio.sleep(30)

    async with running(bench):
        await ten_minutes()
        refused = [request for request in api.requests if len(request.keys) > 3]
        assert len(refused) > 5
        assert len(said(caplog)) == 1
        api.faults = None
        await ten_minutes()
        assert len(said(caplog)) == 1
        api.faults = above(3)
        await ten_minutes()
        assert len(said(caplog)) == 2
    assert bench.dead == {}

    caplog.set_level(logging.WARNING)
