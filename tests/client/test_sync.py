"""The SDK for code without an event loop: the same promises, and the end of a process, forks included."""

import asyncio
import json
import os
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from prefactor_core import (
    ClientAlreadyInitializedError,
    ClientClosedError,
    ClientNotInitializedError,
    CloseSummary,
    HttpClientConfig,
    InMemoryQueue,
    InvalidPayloadError,
    Operation,
    PrefactorCoreConfig,
    PrefactorTelemetryFailureError,
    SpanContextStack,
    SpanNotFoundError,
)
from prefactor_core.sync import AgentInstanceHandle, PrefactorCoreClient, SpanContext
from tests.client.load import nowhere
from tests.engine.test_executor import FiveMethods
from tests.support.emulator import Emulator, EmulatorThread, emulator_process, running_emulator
from tests.support.fleet import until
from tests.support.processes import complaints
from tests.support.recording import RecordingQueue
from tests.support.sync_program import OPERATIONS, SCHEMAS, VERSION, life

DEADLINE = 60.0
ENDS = {"closed": 0, "left": 0, "raising": 1, "terminated": 3}


@pytest.fixture
def url() -> Iterator[str]:
    emulator = EmulatorThread()
    yield emulator.url
    emulator.end()


def config_for(url: str, **options: Any) -> PrefactorCoreConfig:
    return PrefactorCoreConfig(http_config=HttpClientConfig(api_url=url, api_token="token"), **options)


def instance_of(client: PrefactorCoreClient) -> AgentInstanceHandle:
    return client.create_agent_instance(agent_version=VERSION, agent_schema_version=SCHEMAS)


@contextmanager
def recording(**options: Any) -> Iterator[tuple[PrefactorCoreClient, RecordingQueue]]:
    """A client whose operations go nowhere, with all of them."""
    queue = RecordingQueue()
    client = PrefactorCoreClient(config_for(nowhere(), close_timeout=0, **options), queue)
    client.initialize()
    yield client, queue
    client.close(0)


def delivery_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefactor-delivery"]


def in_threads(work: Callable[[int], object], count: int = 8) -> None:
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as failure:  # noqa: BLE001 -- raised below
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    if failures:
        raise failures[0]


# -- what is recorded


def test_a_life_is_delivered_and_its_thread_ends(url: str) -> None:
    with PrefactorCoreClient(config_for(url)) as client:
        life(client)
        assert client.flush(DEADLINE)
        stats = client.stats()
        assert (stats.put, stats.delivered, stats.open_spans) == (OPERATIONS, OPERATIONS, 0)
        assert len(delivery_threads()) == 1
    assert client.close() == CloseSummary(put=OPERATIONS, delivered=OPERATIONS)
    assert not delivery_threads()


def test_spans_nest_and_every_step_can_be_taken_by_hand() -> None:
    with recording() as (client, queue), instance_of(client) as instance:
        with instance.span("t:outer", payload={"a": 1}) as outer:
            assert isinstance(outer, SpanContext)
            outer.set_payload({"b": 2})
            inner = instance.create_span("t:inner")
            assert SpanContextStack.peek() == inner
            instance.finish_span(inner, {"c": 3})
            outer.set_result({"d": 4})
            outer.complete({"e": 5})
            outer.finish()
        scope = client.span(instance.id, "t:outer", payload={"f": 6})
        span = scope.__enter__()
        span.start()
        scope.__exit__(None, None, None)
        with client.span(instance.id, "t:outer") as cancelled:
            cancelled.cancel()
        instance.record_quality("helpfulness", {"score": 5})
    puts = [operation for operation in queue.puts if operation.type.value.endswith("_span")]
    assert [(one.type.value, one.payload["status"]) for one in puts] == [
        ("create_span", "active"),
        ("create_span", "active"),
        ("finish_span", "complete"),
        ("finish_span", "complete"),
        ("create_span", "active"),
        ("finish_span", "complete"),
        ("create_span", "pending"),
        ("finish_span", "cancelled"),
    ]
    assert puts[1].parent_span_id == puts[0].span_id
    assert puts[0].payload["payload"] == {"a": 1, "b": 2}
    assert puts[3].payload["result_payload"] == {"d": 4, "e": 5}
    assert queue.puts[-1].payload["status"] == "complete"
    assert queue.puts[-2].type.value == "record_quality"


def test_an_exception_fails_the_span_and_the_instance_and_goes_on() -> None:
    with recording() as (client, queue):
        with pytest.raises(ZeroDivisionError), instance_of(client) as instance, instance.span("t:outer"):
            _ = 1 / 0
        *_, finish_span, finish = queue.puts
    assert finish_span.payload["status"] == finish.payload["status"] == "failed"
    assert finish_span.payload["result_payload"]["error"]["type"] == "ZeroDivisionError"


def test_what_is_refused() -> None:
    client = PrefactorCoreClient(config_for(nowhere()))
    assert client.close() == CloseSummary()
    for call in (client.flush, client.stats, lambda: instance_of(client)):
        with pytest.raises(ClientNotInitializedError):
            call()
    client.initialize()
    with pytest.raises(ClientAlreadyInitializedError):
        client.initialize()
    instance = instance_of(client)
    bad = {"x": object()}
    with pytest.raises(InvalidPayloadError, match=r"payload\.x"), instance.span("t:outer", payload=bad):
        pass
    with pytest.raises(SpanNotFoundError):
        instance.finish_span(instance.id)
    client.close(0)
    with pytest.raises(ClientClosedError), instance.span("t:outer"):
        pass
    client.initialize()
    life(client)
    assert client.close(0).put == OPERATIONS


def test_a_client_that_cannot_be_made_leaves_no_thread() -> None:
    for client in (
        PrefactorCoreClient(PrefactorCoreConfig()),
        PrefactorCoreClient(PrefactorCoreConfig(transport_url="nothing://")),
    ):
        with pytest.raises(Exception, match=r"http_config|transport_url"):
            client.initialize()
    for thread in delivery_threads():
        thread.join(DEADLINE)
    assert not delivery_threads()


def test_a_refused_token_is_raised_with_what_was_dropped() -> None:
    emulator = EmulatorThread("--token", "another")
    client = PrefactorCoreClient(config_for(emulator.url))
    client.initialize()
    calls = 0
    with pytest.raises(PrefactorTelemetryFailureError) as failed:
        while True:
            calls += 1
            instance_of(client)
    assert failed.value.dropped_operations == calls
    with pytest.raises(PrefactorTelemetryFailureError):
        client.close()
    assert not delivery_threads()
    emulator.end()


@pytest.mark.parametrize("queue", [InMemoryQueue[Operation], FiveMethods])
def test_threads_record_in_one_instance_and_in_their_own(url: str, queue: Callable[[], Any]) -> None:
    with PrefactorCoreClient(config_for(url), queue()) as client:
        shared = instance_of(client)

        def work(_: int) -> None:
            for _ in range(20):
                with shared.span("t:outer") as outer, shared.span("t:inner") as inner:
                    assert outer.id != inner.id
                life(client)

        in_threads(work)
        shared.finish()
    summary = client.close()
    assert summary.complete
    assert summary.put == 8 * 20 * (OPERATIONS + 4) + 3


def test_a_full_buffer_blocks_the_thread_and_closing_lets_it_go() -> None:
    client = PrefactorCoreClient(config_for(nowhere(), buffer_operations=10, buffer_policy="block"))
    client.initialize()
    instance = instance_of(client)
    recorded = Counter[int]()

    def fill(number: int) -> None:
        with pytest.raises(ClientClosedError):
            while True:
                recorded[number] += 1
                instance.record_quality("q", {"n": 1})

    thread = threading.Thread(target=in_threads, args=(fill, 4))
    thread.start()
    while client.stats().put < 14:  # one more for each
        assert thread.is_alive()
    assert client.stats().put == 14
    summary = client.close(0)
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert (summary.put, summary.left) == (14, 14)


async def test_it_works_within_an_event_loop_which_goes_on(tmp_path: Path) -> None:
    async with running_emulator(tmp_path) as emulator:
        client = PrefactorCoreClient(config_for(emulator.url))
        client.initialize()
        life(client)
        await asyncio.to_thread(client.close)
        assert len(await emulator.effects()) == OPERATIONS


def test_a_client_that_is_dropped_is_closed_with_its_thread(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    def use() -> None:
        client = PrefactorCoreClient(config_for(url))
        client.initialize()
        life(client)

    use()
    for thread in delivery_threads():
        thread.join(DEADLINE)
    assert not delivery_threads()
    assert caplog.text == ""


# -- the end of a process, and forks


@dataclass(frozen=True)
class End:
    """How a program ended: its status, the accounts of its processes, and what it said else."""

    status: int | None
    puts: list[int]
    errors: str


async def run_program(url: str, how: str, python: str = sys.executable, **options: object) -> End:
    async with asyncio.timeout(DEADLINE):
        child = await asyncio.create_subprocess_exec(
            *(python, "-W", "default", "-W", "ignore:This process:DeprecationWarning", "-m"),  # it forks
            *("tests.support.sync_program", url, how, json.dumps(options)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await child.communicate()
    return End(child.returncode, [json.loads(line)["put"] for line in output.splitlines()], errors.decode())


def by_name(url: str) -> str:
    """Return the same URL with a name in it that has to be resolved."""
    assert socket.gethostbyname("localhost") == "127.0.0.1"
    return url.replace("127.0.0.1", "localhost")


async def check_effects(emulator: Emulator, puts: int) -> None:
    """Hold what took effect against the number of puts: each key once, each instance whole, parents right."""
    await until(lambda: _arrived(emulator, puts))
    effects = await emulator.effects()
    assert len(effects) == puts
    assert len({effect["key"] for effect in effects}) == puts
    lives: dict[str, list[str]] = {}
    for effect in effects:
        lives.setdefault(effect["instance_id"], []).append(effect["type"])
    assert {tuple(sorted(life)) for life in lives.values()} == {tuple(sorted(next(iter(lives.values()))))}


async def _arrived(emulator: Emulator, puts: int) -> bool:
    return len(await emulator.effects()) >= puts


@pytest.mark.parametrize("how", ENDS)
async def test_a_program_that_ends_delivers_what_it_recorded(tmp_path: Path, how: str) -> None:
    async with emulator_process(tmp_path) as emulator:
        end = await run_program(by_name(emulator.url), how)
        assert (end.status, end.puts) == (ENDS[how], [OPERATIONS]), end.errors
        assert len(await emulator.effects()) == OPERATIONS
    assert complaints(end.errors) == [] or how == "raising", end.errors


async def test_a_program_whose_api_is_away_ends_in_time_and_says_what_is_left() -> None:
    end = await run_program(nowhere(), "left", close_timeout=2.5)
    assert end.status == 0
    assert f"closing waits for {OPERATIONS} operations" in end.errors
    assert f"closed with 0 of {OPERATIONS} operations delivered" in end.errors


async def test_a_program_that_forks_ten_times_delivers_everything_of_everybody_once(tmp_path: Path) -> None:
    async with emulator_process(tmp_path) as emulator:
        end = await run_program(by_name(emulator.url), "forking")
        assert end.status == 0, end.errors
        assert len(end.puts) == 11
        assert end.puts[:10] == [3 * OPERATIONS] * 10
        await check_effects(emulator, sum(end.puts))
    assert complaints(end.errors) == []


async def test_what_multiprocessing_has_forked_delivers_too(tmp_path: Path) -> None:
    async with emulator_process(tmp_path) as emulator:
        end = await run_program(by_name(emulator.url), "multiprocessing")
        assert (end.status, end.puts) == (0, [OPERATIONS]), end.errors
        await check_effects(emulator, 2 * OPERATIONS)


def test_a_forked_child_begins_anew_and_ends_with_nothing_of_its_parents(url: str) -> None:
    client = PrefactorCoreClient(config_for(url))
    client.initialize()
    instance = instance_of(client)
    with instance.span("t:outer") as span:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with pytest.raises(ClientClosedError):
                    span.complete()  # its parent's
                with instance.span("t:inner"):
                    pass
                status = 0 if client.close(DEADLINE) == CloseSummary(put=2, delivered=2) else 2
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    instance.finish()
    assert client.close() == CloseSummary(put=5, delivered=5)
