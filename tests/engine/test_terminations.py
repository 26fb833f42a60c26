"""Terminated instances: what the API refuses of them is superseded, and makes no dead letters."""

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from prefactor_core.api.replies import Reply
from prefactor_core.api.terminations import Terminations
from prefactor_core.operations import Operation
from tests.engine.setups import carried_out
from tests.engine.virtual import virtual
from tests.support.bench import Bench, make_bench, now, problems, running
from tests.support.fake_api import FakeApi, Fault, Request, error_body, status
from tests.support.operations import create, finish, finish_span, key_of, life, quality, start

Refuse = Callable[[FakeApi], None]


def ended(instance: str = "a") -> FakeApi:
    """An API with an instance that was terminated while a span was open."""
    api = FakeApi()
    api.instances[instance] = "active"
    api.spans[f"{instance}-0"] = "active"
    api.span_instances[f"{instance}-0"] = instance
    api.terminate(instance)
    return api


def spans(instance: str, numbers: range) -> list[Operation]:
    """Spans below each other, inside one that was open already, and the end of all."""
    creates = [create(instance, f"{instance}-{n}", f"{instance}-{n - 1}") for n in numbers]
    finishes = [finish_span(instance, f"{instance}-{n}") for n in reversed(numbers)]
    return [*creates, *finishes, finish_span(instance, f"{instance}-0"), finish(instance)]


@asynccontextmanager
async def asked_to_stop(api: FakeApi) -> AsyncIterator[Bench]:
    """Run a sender that has heard, in the reply to a span that is open, that its agent is to stop."""
    api.instances["a"] = "active"
    async with running(make_bench(api)) as bench:
        await bench.put(create("a", "a-0"))
        await bench.settle()
        yield bench


def counts(bench: Bench) -> tuple[Counter[str], Counter[str]]:
    account = bench.executor.account
    return account.superseded_by_type, account.overtaken_by_type


ALL_OF_SIX = (Counter(create_span=6, finish_span=6), Counter(finish_span=1, finish_agent_instance=1))


@pytest.mark.parametrize("bulk", [True, False], ids=["bulk", "single"])
@pytest.mark.parametrize("unreadable", [False, True], ids=["readable", "deployment"])
@virtual
async def test_nothing_of_it_is_a_dead_letter_and_the_others_are_untouched(
    caplog: pytest.LogCaptureFixture, *, bulk: bool, unreadable: bool
) -> None:
    api = ended()
    api.unreadable = unreadable
    api.no_bulk = None if bulk else Reply(404)

    bench = await carried_out(api, spans("a", range(1, 7)), *(life(f"b{n}", 20) for n in range(5)))
    assert bench.dead == {}
    assert counts(bench) == ALL_OF_SIX
    assert problems(bench.put_so_far, api, {key_of(one) for one in spans("a", range(1, 7))}) == []
    known = "takes nothing any more" if unreadable else "is terminated by the service"
    assert [line for line in caplog.messages if "instance a" in line] == [
        f"prefactor: instance a {known}: what it refuses is superseded"
    ]
    refusals = sum("a" in request.instances for request in api.requests)
    assert refusals <= 5, "what is known to be superseded is not sent"


@virtual
async def test_a_control_signal_in_bulk_says_so_without_a_read() -> None:
    api = FakeApi(controls={"a"})
    async with asked_to_stop(api) as bench:
        api.terminate("a")
        await bench.put(*spans("a", range(1, 7)))
        await bench.settle()
    assert (api.reads, bench.dead, counts(bench)) == ([], {}, ALL_OF_SIX)


@pytest.mark.parametrize("unreadable", [False, True], ids=["readable", "deployment"])
@virtual
async def test_a_start_that_comes_after_the_termination_is_superseded(*, unreadable: bool) -> None:
    api = FakeApi(unreadable=unreadable)
    api.instances["a"] = "terminated"

    bench = await carried_out(api, [start("a"), create("a", "a-1"), finish_span("a", "a-1"), finish("a")])
    superseded = Counter(start_agent_instance=1, create_span=1, finish_span=1)
    assert (bench.dead, counts(bench)) == ({}, (superseded, Counter(finish_agent_instance=1)))


@virtual
async def test_qualities_are_sent_all_the_same() -> None:
    api = ended()
    await carried_out(api, [create("a", "a-1"), quality("a"), create("a", "a-2"), finish("a")])
    assert api.done() == ["a:quality:0"]


@virtual
async def test_a_span_that_another_process_superseded_is_not_there_to_be_finished() -> None:
    """404 for the span: a read tells that its instance is terminated."""
    bench = await carried_out(ended(), [finish_span("a", "a-7"), create("a", "a-8", "a-7")])
    assert (bench.dead, counts(bench)) == ({}, (Counter(finish_span=1, create_span=1), Counter()))


@virtual
async def test_one_refusal_tells_nothing_where_nothing_can_be_read() -> None:
    """It waits for another; once that has taken too long, it is a dead letter."""
    api = FakeApi(unreadable=True)
    api.instances["a"] = "over"

    bench = make_bench(api)
    async with running(bench):
        began = now()
        await bench.put(create("a", "a-1"), quality("a"))
        await bench.settle()
        assert 10 <= now() - began < 60
        assert {key: one.reason for key, one in bench.dead.items()} == {
            "a-1:create": "the instance is over: HTTP 409 invalid_action"
        }
        assert api.done() == ["a:quality:0"], "an instance that is over takes qualities"


@pytest.mark.parametrize("bulk", [True, False], ids=["bulk", "single"])
@virtual
async def test_spans_one_after_the_other_where_nothing_can_be_read(*, bulk: bool) -> None:
    """The finish of a span that was refused tells nothing: that span is not there."""
    api = ended()
    api.unreadable = True
    api.no_bulk = None if bulk else Reply(404)
    turns = [(create("a", f"a-{n}"), finish_span("a", f"a-{n}")) for n in range(1, 4)]

    bench = await carried_out(api, [*(one for turn in turns for one in turn), finish("a")], life("b", 20))
    superseded = Counter(create_span=3, finish_span=3)
    assert (bench.dead, counts(bench)) == ({}, (superseded, Counter(finish_agent_instance=1)))


@virtual
async def test_two_refusals_with_a_success_in_between_tell_nothing() -> None:
    api = FakeApi(unreadable=True)
    api.instances["a"] = "active"
    api.reject = lambda one: (409, "invalid_action") if one.key in {"a-1:create", "a-4:create"} else None

    creates = [create("a", f"a-{n}") for n in range(1, 7)]
    bench = await carried_out(api, [*creates, finish("a")])
    assert set(bench.dead) == {"a-1:create", "a-4:create"}
    assert api.done() == ["a-2:create", "a-3:create", "a-5:create", "a-6:create", "a:finish"]


@virtual
async def test_an_inferred_end_is_not_told_to_the_agent_and_a_control_signal_still_is() -> None:
    told: list[tuple[str, str | None]] = []
    terminations = Terminations(lambda instance, reason: told.append((instance, reason)))
    terminations.refused("a", "one", 1.0)
    assert "a" not in terminations
    terminations.refused("a", "two", 2.0)
    assert ("a" in terminations, told) == (True, [])
    terminations.heard("a", "enough")
    terminations.heard("a", "more")
    assert told == [("a", "enough")]


@virtual
async def test_an_id_that_is_taken_says_nothing_of_the_instance() -> None:
    """The operation that is sent to find out meets a conflict of its own; the one behind it tells."""
    api = FakeApi(unreadable=True)
    api.instances["a"] = "active"
    refusals = {"a-1:create": (409, "invalid_action"), "a-2:create": (409, "conflict")}
    api.reject = lambda one: refusals.get(one.key)

    bench = await carried_out(api, [create("a", "a-1"), create("a", "a-2"), create("a", "a-3"), finish("a")])
    assert {key: one.reason for key, one in bench.dead.items()} == {
        "a-1:create": "conflict: HTTP 409 invalid_action",
        "a-2:create": "conflict: HTTP 409 conflict",
    }
    assert (api.done(), counts(bench)) == (["a-3:create", "a:finish"], (Counter(), Counter()))


@virtual
async def test_a_start_that_is_refused_while_reads_fail_is_no_success() -> None:
    """It is the read that may have reached the API, not the start."""
    api = FakeApi()
    api.instances["a"] = "active"
    api.read_replies.extend([status(503).reply])
    bench = await carried_out(api, [start("a"), create("a", "a-1"), finish("a")])
    assert {key: one.reason for key, one in bench.dead.items()} == {
        "a:starting": "conflict: HTTP 409 invalid_action"
    }
    assert (api.done(), bench.executor.account.overtaken) == (["a-1:create", "a:finish"], 0)


@virtual
async def test_a_finished_instance_takes_qualities_and_the_finishes_of_open_spans() -> None:
    api = FakeApi()
    api.instances["a"] = "over"
    api.spans["a-0"] = "active"
    api.span_instances["a-0"] = "a"

    operations = [create("a", "a-1"), quality("a"), create("a", "a-2"), finish_span("a", "a-1")]
    bench = await carried_out(api, [*operations, finish_span("a", "a-0"), finish("a")])
    assert set(bench.dead) == {"a-1:create", "a-2:create", "a-1:finish"}
    assert api.done() == ["a:quality:0", "a-0:finish"]
    assert api.sent("a-2:create") == 1, "in the bulk request that was cut short"


@virtual
async def test_a_second_refusal_may_come_later() -> None:
    api = ended()
    api.unreadable = True

    bench = make_bench(api)
    async with running(bench):
        await bench.put(create("a", "a-1"))
        while not api.sent("a-1:create"):
            await bench.queue.flush(0.01)
        await bench.put(finish("a"))
        await bench.settle()
    assert (bench.dead, counts(bench)) == ({}, (Counter(create_span=1), Counter(finish_agent_instance=1)))


@virtual
async def test_an_instance_that_takes_the_next_operation_is_not_over() -> None:
    """Why the one was refused is not known; the others of its instance are taken."""
    api = FakeApi(unreadable=True)
    api.instances["a"] = "active"
    api.reject = lambda one: (409, "invalid_action") if one.key == "a-1:create" else None

    bench = await carried_out(api, [create("a", "a-1"), create("a", "a-2"), finish("a")])
    assert {key: dead.reason for key, dead in bench.dead.items()} == {
        "a-1:create": "conflict: HTTP 409 invalid_action"
    }
    assert api.done() == ["a-2:create", "a:finish"]
    assert counts(bench) == (Counter(), Counter())


@virtual
async def test_what_a_running_instance_refuses_is_a_conflict_of_its_own() -> None:
    api = FakeApi()
    api.instances["a"] = "active"
    api.reject = lambda one: (409, "invalid_action") if one.key == "a-1:create" else None

    bench = await carried_out(api, [create("a", "a-1"), create("a", "a-2"), finish("a")])
    assert set(bench.dead) == {"a-1:create"}
    assert api.done() == ["a-2:create", "a:finish"]


@virtual
async def test_what_an_operator_replays_stays_a_dead_letter() -> None:
    bench = make_bench(ended())
    operations = [create("a", "a-1"), create("a", "a-2")]
    await bench.put(*operations)
    for delivery in await bench.waiting():
        delivery.maybe_sent = delivery.replayed = True
    async with running(bench):
        await bench.settle()
        await bench.put(create("a", "a-3"))  # of the agent, which goes on
        await bench.settle()
    reason = "the instance is over: HTTP 409 invalid_action"
    assert {key: dead.reason for key, dead in bench.dead.items()} == dict.fromkeys(
        map(key_of, operations), reason
    )
    assert counts(bench) == (Counter(create_span=1), Counter())


@virtual
async def test_a_span_that_the_service_has_closed_is_overtaken_at_the_first_sending() -> None:
    api = FakeApi()
    api.instances["a"] = "active"
    api.spans["a-0"] = "over"
    api.span_instances["a-0"] = "a"

    bench = await carried_out(api, [finish_span("a", "a-0"), finish("a")])
    assert (bench.dead, counts(bench)) == ({}, (Counter(), Counter(finish_span=1)))
    assert api.reads == []


def busy(code: str, state: str) -> FakeApi:
    """An API that answers the first finish of an instance with 409 and a code of its own."""
    api = FakeApi()
    api.instances["a"] = state
    left = [code]

    def fault(request: Request) -> Fault | None:
        finishes = request.keys == ("a:finish",)
        return Fault(Reply(409, error_body(left.pop()))) if finishes and left else None

    api.no_bulk = Reply(404)
    api.faults = fault
    return api


@pytest.mark.parametrize(("state", "overtaken"), [("active", 0), ("over", 1), ("terminated", 1)])
@virtual
async def test_409_with_another_code_on_the_finish_of_an_instance(state: str, overtaken: int) -> None:
    """A read tells whether it is over, or the finish is in flight elsewhere and is sent again."""
    api = busy("locked", state)
    bench = await carried_out(api, [finish("a")])
    assert (bench.dead, bench.executor.account.overtaken) == ({}, overtaken)
    assert api.done() == ([] if overtaken else ["a:finish"])


@virtual
async def test_a_finish_that_nobody_may_ask_about_is_taken_for_done() -> None:
    api = busy("locked", "active")
    api.unreadable = True
    bench = await carried_out(api, [finish("a")])
    assert (bench.dead, bench.executor.account.overtaken) == ({}, 1)


@pytest.mark.parametrize("refused", [401, 403])
@virtual
async def test_a_quality_that_is_not_allowed_says_nothing_of_the_token(refused: int) -> None:
    api = FakeApi()
    api.reject = lambda one: (refused, "unauthorized") if one.action.endswith("record_quality") else None

    bench = await carried_out(api, [*life("a")[:-1], quality("a"), finish("a")], life("b"))
    assert set(bench.dead) == {"a:quality:0"}
    assert bench.failures == []
    assert len(api.done()) == 10


@virtual
async def test_reads_that_fail_are_asked_again() -> None:
    api = ended()
    api.read_replies.extend([status(503).reply, Reply(404), Reply(None, failure="ReadTimeout")])
    bench = await carried_out(api, spans("a", range(1, 7)))
    assert (bench.dead, counts(bench)) == ({}, ALL_OF_SIX)


@virtual
async def test_many_instances_end_in_one_load(caplog: pytest.LogCaptureFixture) -> None:
    """Given a load of many, when half of them are terminated in the middle, then the books are exact."""
    caplog.set_level(logging.WARNING)
    api = FakeApi(latency=lambda: 0.02)
    lives = [life(f"i{number:02}", 30) for number in range(50)]
    gone = {f"i{number:02}" for number in range(0, 50, 2)}

    bench = make_bench(api)
    async with running(bench):
        for count, operations in enumerate(_interleaved(lives)):
            await bench.put(*operations)
            await bench.queue.flush(0.005)
            if count == 20:
                for instance in gone:
                    api.terminate(instance)
        await bench.settle()
    assert bench.dead == {}
    done = set(api.done())
    missing = {key_of(one) for one in bench.put_so_far if one.instance_id in gone} - done
    assert problems(bench.put_so_far, api, missing) == []
    account = bench.executor.account
    assert account.settled - account.overtaken == len(api.effects)
    assert account.settled + account.superseded == len(bench.put_so_far)
    refused = sum(key.endswith(":create") for key in missing)
    assert account.superseded_by_type == Counter(create_span=refused, finish_span=refused)
    assert sum("is terminated by the service" in line for line in caplog.messages) == len(gone)


def _interleaved(lives: Sequence[Sequence[Operation]]) -> list[list[Operation]]:
    return [[life[number] for life in lives if number < len(life)] for number in range(len(lives[0]))]


REFUSALS = [(400, "invalid"), (403, "forbidden"), (404, "not_found"), (409, "conflict"), (410, "gone")]
REFUSALS += [(409, "instance_terminated"), (422, "validation_error")]


@pytest.mark.parametrize(("code", "words"), REFUSALS, ids=str)
@virtual
async def test_whatever_is_refused_of_an_instance_known_to_be_terminated(code: int, words: str) -> None:
    api = FakeApi(controls={"a"})
    async with asked_to_stop(api) as bench:
        api.reject = lambda one: (code, words) if one.instance == "a" else None
        await bench.put(*spans("a", range(1, 4)), *life("b"))
        await bench.settle()
    assert bench.dead == {}
    superseded, overtaken = counts(bench)
    assert (superseded["create_span"], overtaken["finish_agent_instance"]) == (3, code != 403)


@virtual
async def test_a_lane_that_was_narrowed_by_failures_still_tells() -> None:
    """One operation at a time after failures of the API: what is behind it has to come along."""
    api = ended()
    api.unreadable = True
    api.script.extend([status(500)] * 3)
    bench = await carried_out(api, spans("a", range(1, 4)))
    assert bench.dead == {}


@virtual
async def test_many_replayed_instances_that_are_terminated_hold_up_nobody() -> None:
    """A read has proved each: that is no sign of a wrong account."""
    api = FakeApi()
    names = [f"i{number:02}" for number in range(30)]
    api.instances.update(dict.fromkeys(names, "terminated"))
    bench = make_bench(api)
    await bench.put(*(create(name, f"{name}-1") for name in names))
    for delivery in await bench.waiting():
        delivery.maybe_sent = delivery.replayed = True
    async with running(bench):
        await bench.settle(60)
    assert len(bench.dead) == 30
