"""Every row of the API's table of replies, end to end: queue, executor, delivery, fake API."""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

from prefactor_core.api.replies import Reply
from prefactor_core.operations import SDK_HEADER, Operation, OperationType
from tests.engine.setups import carried_out, check_all_done
from tests.engine.virtual import each, virtual
from tests.support.bench import Bench, make_bench, now, running
from tests.support.fake_api import (
    FakeApi,
    Fault,
    Wanted,
    error_body,
    lost_reply,
    lost_request,
    page,
    refused_connection,
    status,
)
from tests.support.operations import (
    WHEN,
    create,
    finish,
    finish_span,
    keys_of,
    life,
    quality,
    register,
    start,
)
from tests.support.virtual_time import run_virtual


def run(bench: Bench, *lives: list[Operation], within: float = 600.0) -> Bench:
    async def program() -> None:
        async with running(bench):
            await bench.put_all(*lives)
            await bench.settle(within)

    run_virtual(program())
    return bench


def refuse(*keys: str, code: int = 422, error: str = "invalid") -> Callable[[Wanted], tuple[int, str] | None]:
    return lambda one: (code, error) if one.key in keys else None


# -- rows that end well


def test_done() -> None:
    bench = run(make_bench(), life("a", 2))
    check_all_done(bench)
    assert bench.executor.account.retried == 0
    assert len(bench.api.requests) == 1


NOT_DONE = [
    *(status(code) for code in (408, 425, 500, 502, 503, 504, 418, 301, 410)),
    *(page(code) for code in (200, 400, 401, 403, 404, 409, 413, 422, 500, 502)),
    status(429),
    status(429, retry_after=30),
    status(503, retry_after=30),
    status(409),
    status(500, effect=2),
    lost_reply(),
    lost_request(),
    refused_connection(),
]
DONE_ALONE = [
    Fault(Reply(200, {"status": "success"})),
    Fault(Reply(200, {"status": "success", "outputs": {}})),
    Fault(Reply(200, {"status": "success", "outputs": {"b:register": {"status": "success"}}})),
    Fault(Reply(200, {"status": "success", "outputs": {"a:register": "yes"}})),
    Fault(Reply(204, empty=True)),
]
"""What says of a single request that it was done, and of no operation in a bulk request."""


@each(
    "fault, no_bulk",
    [*itertools.product([*NOT_DONE, *DONE_ALONE], [None]), *itertools.product(NOT_DONE, [Reply(404)])],
)
def test_not_known_to_be_done_is_sent_again_the_same(fault: Fault, no_bulk: Reply | None) -> None:
    api = FakeApi(script=deque([fault]), no_bulk=no_bulk)
    bench = run(make_bench(api), life("a", 2))
    check_all_done(bench)
    assert len(api.requests) > 1


def test_retry_after_is_a_floor() -> None:
    for fault in (status(429, retry_after=30), status(503, retry_after=30)):
        api = FakeApi(script=deque([fault]))
        run(make_bench(api), life("a"))
        assert api.requests[1].at - api.requests[0].at >= 30


@virtual
async def test_a_throttle_holds_everybody() -> None:
    api = FakeApi(script=deque([status(429, retry_after=30)]))
    bench = make_bench(api)
    async with running(bench):
        await bench.put(*life("a"))
        await asyncio.sleep(1)
        await bench.put(*life("b"))
        await bench.settle()
    assert len(api.requests) > 1
    assert min(request.at for request in api.requests[1:]) >= api.requests[0].at + 30


# -- conflicts


@virtual
async def test_conflict_after_a_lost_reply_is_settled_and_counted() -> None:
    bench = make_bench(FakeApi(script=deque([lost_reply()])))
    async with running(bench):
        await bench.put(*life("a", 2))
        await asyncio.sleep(0.015)
        assert len(bench.api.effects) == 7
        bench.api.forget_keys()
        await bench.settle()
    check_all_done(bench)
    assert bench.executor.account.overtaken == 7


@each("bulk", [True, False])
def test_conflict_at_the_first_sending_is_not_ours(*, bulk: bool) -> None:
    api = FakeApi(no_bulk=None if bulk else Reply(404))
    api.instances["a"] = "active"
    api.spans["a-x"] = "over"
    bench = run(make_bench(api), [create("a", "a-x"), create("a", "a-y")])
    assert set(bench.dead) == {"a-x:create"}
    assert bench.dead["a-x:create"].reason.startswith("conflict")
    assert "409 conflict" in str(bench.dead["a-x:create"].reply)
    assert bench.api.done() == ["a-y:create"]


FIRST_READS = [None, Reply(503), Reply(429, retry_after=5.0), page(404).reply]


@each("state, first_read", [*itertools.product(["terminated", "over"], FIRST_READS)])
def test_finish_of_an_instance_that_is_over_is_settled(state: str, first_read: Reply | None) -> None:
    api = FakeApi(read_replies=deque([first_read] if first_read is not None else []))
    api.instances["a"] = state
    bench = run(make_bench(api), [finish("a")])
    assert bench.dead == {}
    assert bench.executor.account.overtaken == 1


def test_finish_of_an_instance_that_is_not_over_is_a_conflict() -> None:
    api = FakeApi()
    api.instances["a"] = "pending"
    bench = run(make_bench(api), [finish("a")])
    assert bench.dead["a:finish"].reason.startswith("conflict")
    assert "invalid_action" in str(bench.dead["a:finish"].reply)


@virtual
async def test_a_handover_during_a_request_remembers_that_it_may_have_been_sent() -> None:
    """A stop cuts a request short whose effect has happened: the next executor finds no conflict."""
    api = FakeApi(latency=lambda: 5.0)
    first = make_bench(api)
    first.executor.start()
    await first.put(*life("a"))
    await asyncio.sleep(1)
    assert len(api.effects) == 5
    await first.executor.abandon()
    api.forget_keys()
    second = make_bench(api, queue=first.queue)
    async with running(second):
        await second.settle()
    assert second.dead == {}
    assert second.executor.account.overtaken == 5


# -- rejections


@each("bulk, code", [*itertools.product([True, False], [400, 401, 403, 404, 413, 422])])
def test_one_refused_operation_is_set_aside_with_the_reply(code: int, *, bulk: bool) -> None:
    api = FakeApi(
        no_bulk=None if bulk else Reply(404), reject=refuse("a-span1:create", code=code, error="no_good")
    )
    bench = run(make_bench(api), life("a", 3), life("b", 3))
    assert set(bench.dead) == {"a-span1:create", "a-span1:finish"}
    dead = bench.dead["a-span1:create"]
    reason = "not allowed" if code in {401, 403} else "rejected"
    assert dead.reason.startswith(reason)
    assert f"HTTP {code} no_good" in str(dead.reply)
    assert bench.dead["a-span1:finish"].reason.startswith(f"follows a lost operation: {reason}")
    assert bench.problems() == []
    assert bench.failures == []


FAMILY = [
    *(register("a"), start("a"), create("a", "a-1"), create("a", "a-2", "a-1"), create("a", "a-3", "a-2")),
    *(create("a", "a-4"), *(finish_span("a", f"a-{number}") for number in (3, 2, 1, 4)), finish("a")),
]


@each(
    "refused, kept",
    [
        ("a:register", []),
        ("a:starting", ["a:register"]),
        ("a-1:create", ["a:register", "a:starting", "a-4:create", "a-4:finish", "a:finish"]),
    ],
)
def test_a_refused_operation_takes_its_dependents_along(refused: str, kept: list[str]) -> None:
    bench = run(make_bench(FakeApi(reject=refuse(refused))), FAMILY, life("b", 3))
    assert bench.api.done("a") == kept
    assert set(bench.dead) == {*keys_of(FAMILY)} - {*kept}
    assert bench.dead[refused].reason.startswith("rejected")
    for key in bench.dead.keys() - {refused}:
        assert bench.dead[key].reason.startswith("follows a lost operation: rejected")
        assert bench.api.sent(key) <= 1
    assert bench.problems() == []


def test_an_instance_that_somebody_else_has_started_goes_on() -> None:
    api = FakeApi()
    api.instances["a"] = "active"
    bench = run(make_bench(api), life("a")[1:])
    assert set(bench.dead) == {"a:starting"}
    assert bench.api.done() == ["a-span0:create", "a-span0:finish", "a:finish"]


# -- nobody in another's way


@each("repeated", [True, False])
async def test_an_instance_of_conflicts_does_not_hold_up_the_others(*, repeated: bool) -> None:
    """It is over, or is sent again after its keys expired: each conflict cuts a request short."""
    api = FakeApi(latency=lambda: 0.02)
    api.instances["a"] = "active" if repeated else "over"
    if repeated:
        api.spans.update({f"a-{number}": "active" for number in range(200)})
    bench = make_bench(api, num_workers=1)
    await bench.put(*(create("a", f"a-{number}") for number in range(200)))
    for delivery in await bench.waiting():
        delivery.maybe_sent = repeated  # as a broker says of what it delivers again
    await bench.put(*life("b"), *life("c"))
    async with running(bench):
        await bench.settle(within=3600)
    assert (len(bench.dead), bench.executor.account.overtaken) == ((0, 200) if repeated else (200, 0))
    before = [request for request in api.requests if request.at < api.effects[-1].at]
    assert len(before) < 50, "the others waited for the whole of it"


@virtual
async def test_what_cannot_be_encoded_does_not_hold_up_the_others() -> None:
    """It cuts each request short until it is the first; a busy lane must not prevent that."""
    api = FakeApi(latency=lambda: 0.02)
    bench = make_bench(api, num_workers=1)
    busy = [quality("a", number) for number in range(5000)]
    template = create("b", "b-1")
    lacking = {"instance_id": "b", "span_id": "b-1"}
    broken = Operation(template.type, lacking, template.timestamp, "broken-key")
    api.instances["a"] = "active"
    await bench.put(*busy[:100], broken, *life("c"), *busy[100:])
    async with running(bench):
        await bench.settle(within=3600)
    assert "schema_name" in bench.dead["broken-key"].reason
    last_of_c = max(effect.at for effect in api.effects if effect.instance == "c")
    last_of_a = max(effect.at for effect in api.effects if effect.instance == "a")
    assert last_of_c < last_of_a


def test_a_failed_lane_travels_alone_until_it_succeeds() -> None:
    # Every create of "a" is refused: its company must not be cut short each time.
    def reject(one: Wanted) -> tuple[int, str] | None:
        return (422, "bad") if one.instance == "a" and one.action == "agent_spans/create" else None

    api = FakeApi(reject=reject, latency=lambda: 0.02)
    api.instances["a"] = "active"
    bench = run(
        make_bench(api, num_workers=1), [create("a", f"a-{n}") for n in range(30)], life("b"), life("c")
    )
    assert len(bench.dead) == 30
    shared = [request for request in api.requests if "a" in request.instances and len(request.instances) > 1]
    assert len(shared) == 1
    assert bench.problems() == []


def test_what_was_not_reached_goes_out_at_once() -> None:
    api = FakeApi(reject=refuse("a-span0:create"))
    run(make_bench(api), life("a"), life("b"))
    assert api.requests[-1].at - api.requests[0].at < 0.1


def test_an_item_error_of_unknown_code_is_asked_singly() -> None:
    api = FakeApi(item_code=lambda one: "odd" if one.key == "a-span0:create" else None)
    bench = run(make_bench(api), life("a"), life("b"))
    check_all_done(bench)
    assert [request.keys for request in api.single_requests] == [("a-span0:create",)]


def test_too_large_is_split() -> None:
    api = FakeApi(most_items=3)
    bench = run(make_bench(api), life("a", 20), life("b", 3))
    check_all_done(bench)
    assert len(api.requests) < 2 * len(bench.put_so_far)


def test_a_bulk_refused_whole_is_split_down_to_the_one_to_blame() -> None:
    def faults(request: Any) -> Fault | None:
        return status(422) if "a-span3:create" in request.keys else None

    bench = run(make_bench(FakeApi(faults=faults)), life("a", 6), life("b", 6))
    assert set(bench.dead) == {"a-span3:create", "a-span3:finish"}
    assert bench.problems() == []


@each("reply", [Reply(404), Reply(405), Reply(501), Reply(404, error_body("not_found"))])
async def test_without_bulk_single_requests_do_the_work_and_bulk_is_tried_again(reply: Reply) -> None:
    api = FakeApi(no_bulk=reply, latency=lambda: 0.01)
    bench = make_bench(api)
    async with running(bench):
        began = now()
        await bench.put_all(life("a", 3), life("b", 3))
        await bench.settle()
        assert now() - began < 10
        assert len(api.single_requests) == len(bench.put_so_far)
        assert len(api.bulk_requests) <= 3, "each worker may have had one under way"
        await asyncio.sleep(began + 59 - now())
        await bench.put(*life("c"))
        await bench.settle()
        bulks = len(api.bulk_requests)
        assert bulks <= 3
        api.no_bulk = None
        await asyncio.sleep(5)
        await bench.put(*life("d"))
        await bench.settle()
        assert len(api.bulk_requests) == bulks + 1
    check_all_done(bench)


def test_duplicate_keys_are_never_in_one_request() -> None:
    twice = quality("a", 1)
    api = FakeApi()
    api.instances["a"] = "active"
    bench = make_bench(api)
    run(bench, [twice, twice, quality("a", 2)])
    # The fake API itself refuses a request with a key twice.
    assert api.done() == ["a:quality:1", "a:quality:2"]
    assert bench.executor.account.settled == 3


# -- poison


@virtual
async def test_poison_is_set_aside_after_its_attempts_while_its_neighbours_go_on() -> None:
    api = FakeApi(poison=lambda one: one.key == "a-span1:create", latency=lambda: 0.02)
    bench = make_bench(api)
    async with running(bench):
        await bench.put_all(life("a", 3), life("b", 3))
        for number in range(60):
            await bench.put(*life(f"n{number:02}"))
            await asyncio.sleep(1)
        await bench.settle()
    assert set(bench.dead) == {"a-span1:create", "a-span1:finish"}
    dead = bench.dead["a-span1:create"]
    assert 4 <= dead.attempts <= 8
    assert dead.reason.startswith(f"failed after {dead.attempts} attempts: HTTP 500")
    assert bench.problems() == []
    ends = {effect.key: effect.at for effect in api.effects}
    for number in range(60):
        assert ends[f"n{number:02}:finish"] - 1000 < number + 10


def test_poison_alone_at_an_endpoint_that_is_well_is_given_up() -> None:
    api = FakeApi(poison=lambda one: one.key == "a-span0:create")
    bench = run(make_bench(api), life("a"))
    assert set(bench.dead) == {"a-span0:create", "a-span0:finish"}
    assert bench.problems() == []


# -- the token


_REFUSED = Reply(401, error_body("unauthorized"))


@virtual
async def test_a_bad_token_ends_everything_where_it_is_final() -> None:
    bench = make_bench(FakeApi(token=_REFUSED), latch=True)
    bench.executor.start()
    await bench.put(*life("a"))
    await asyncio.sleep(60)
    assert len(bench.failures) == 1
    assert bench.failures[0].operation_type == "REGISTER_AGENT_INSTANCE"
    assert "401" in str(bench.failures[0])
    assert bench.executor.account.released == 5
    assert bench.queue.size() == 5
    assert bench.dead == {}
    bench.check_books()


@virtual
async def test_a_bad_token_is_waited_out_where_it_can_be_mended() -> None:
    api = FakeApi(token=_REFUSED, latency=lambda: 0.05)
    bench = make_bench(api, latch=False)
    async with running(bench):
        await bench.put_all(*(life(f"i{number}") for number in range(10)))
        await asyncio.sleep(600)
        assert len(api.requests) <= 3
        api.token = None
        mended = now()
        await bench.settle(within=60)
        assert api.effects[0].at - mended < 11
    check_all_done(bench)


@virtual
async def test_a_token_that_is_mended_before_the_ping_costs_nothing() -> None:
    """The write is refused, and by the time that the ping asks, the token is good again."""
    api = FakeApi(script=deque([Fault(_REFUSED)]), no_bulk=Reply(404))
    check_all_done(await carried_out(api, life("a"), latch=False))


@virtual
async def test_a_token_revoked_while_requests_are_under_way_costs_nothing() -> None:
    """A success that came during a request says nothing of the token at the request's end."""

    class Revoking(FakeApi):
        async def post(self, path: str, body: bytes, sdk_header: str | None = None) -> Reply:
            if b"b:quality:2" in body and not self.pings:
                await asyncio.sleep(2)  # the success of a comes within that time
                self.token = _REFUSED
                return _REFUSED
            return await super().post(path, body, sdk_header)

    api = Revoking(no_bulk=Reply(404), latency=lambda: 0.1, instances={"a": "active", "b": "active"})
    bench = make_bench(api, latch=False)
    async with running(bench):
        await bench.put(quality("a", 1))
        await asyncio.sleep(0.5)  # no bulk, and the first single one is done
        await bench.put(quality("b", 2))
        await asyncio.sleep(0.5)
        await bench.put(quality("a", 3))
        await asyncio.sleep(30)
        assert api.done() == ["a:quality:1", "a:quality:3"]
        assert bench.dead == {}, "the token was bad, not the operation"
        api.token = None
        await bench.settle()
    assert "b:quality:2" in api.done()


# -- sendings


@virtual
async def test_all_sendings_of_an_operation_are_the_same() -> None:
    """In bulk, alone, after each kind of failure."""
    faults = [lost_reply(), status(500), page(502), lost_request(), status(429), refused_connection()] * 3
    api = FakeApi(script=deque(faults))
    bench = make_bench(api)
    async with running(bench):
        await bench.put(*life("a", 4))
        await asyncio.sleep(3)
        api.no_bulk = Reply(404)
        await asyncio.sleep(100)
        api.no_bulk = None
        await bench.settle()
    assert max(api.sent(key) for key in api.sendings) > 5
    assert bench.problems() == []


def test_no_more_requests_at_once_than_workers() -> None:
    api = FakeApi(no_bulk=Reply(404), latency=lambda: 0.1)
    bench = run(make_bench(api, num_workers=4), *(life(f"i{number}") for number in range(20)))
    assert api.most_at_once == 4
    assert bench.problems() == []


# -- operations that were built by hand


def test_an_object_in_the_place_of_a_text_stops_no_other_operation() -> None:
    odd = Operation(
        OperationType.CREATE_SPAN,
        {"instance_id": "b", "span_id": "b-span", "schema_name": {"not": "a name"}},
        WHEN,
        "b-span:create",
    )
    bench = run(make_bench(FakeApi(instances={"b": "active"})), life("a", 2), [odd], life("c", 2))
    assert bench.problems() == []
    assert bench.executor.account.retried == 0


class StrictApi(FakeApi):
    """Takes headers as an HTTP client does."""

    async def post(self, path: str, body: bytes, sdk_header: str | None = None) -> Reply:
        try:
            (sdk_header or "").encode("ascii")
        except UnicodeEncodeError as error:
            return Reply(None, failure=type(error).__name__)
        return await super().post(path, body, sdk_header)


def unsound(number: int, instance: Any, key: Any = None, **more: Any) -> Operation:
    payload = {"instance_id": instance, "span_id": f"d-{number}", "schema_name": "step"}
    metadata = {SDK_HEADER: more.pop("header", "mine@1")}
    return Operation(
        OperationType.CREATE_SPAN, payload | more, WHEN, key or f"unsound-{number}:create", metadata
    )


@virtual
async def test_operations_that_are_not_sound_stop_no_others() -> None:
    odd = [
        unsound(1, "a", header="größe@1"),
        unsound(2, "b", header="x" * 2_000),
        unsound(3, "a", "\ud800"),
        unsound(4, {"not": "an id"}),
        unsound(5, "b", parent_span_id=["not an id"]),
        unsound(6, "a", span_id={"not": "an id"}),
        unsound(7, ".."),
    ]
    bench = make_bench(StrictApi())
    bench.api.instances["z"] = "active"

    async with running(bench):
        await bench.put_all(life("a", 2), life("b", 2))
        for one in odd:
            await bench.queue.put(one)
            await bench.put(quality("z", odd.index(one)))
        await bench.settle()
    assert bench.executor.account.retried == 0
    assert {dead.item.idempotency_key for dead in bench.queue.dead_letters()} == {
        one.idempotency_key for one in odd
    }
    assert {dead.attempts for dead in bench.queue.dead_letters()} == {0}
    assert len(bench.api.done()) == len(life("a", 2)) * 2 + len(odd)
