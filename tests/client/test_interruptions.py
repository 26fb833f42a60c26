"""Spans that finalisers and signal handlers record, and spans that nobody ends, in any thread."""

import asyncio
import gc
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from prefactor_core import (
    AgentInstanceHandle,
    Operation,
)
from tests.client.load import client_for, new_instance
from tests.client.threads import (
    DEADLINE,
    THREADS,
    check_sequence,
    each_in_its_loop,
    emptied_elsewhere,
    keys_by_instance,
    parents_of,
    watched,
)
from tests.support.emulator import running_emulator
from tests.support.fleet import until
from tests.support.threads import Gone


def now(call: Coroutine[Any, Any, Any]) -> Any:
    """Make a call where nobody can await it: recording never waits."""
    try:
        call.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits for something")


class Notes:
    """What finalisers and handlers have recorded: the ids of spans, by instance, in order."""

    def __init__(self, instances: list[AgentInstanceHandle]) -> None:
        self.spans: dict[str, list[str]] = {instance.id: [] for instance in instances}
        self.errors: list[BaseException] = []
        self._instances = instances

    def record(self, number: int) -> None:
        """Record two nested spans, in one of the instances."""
        instance = self._instances[number % len(self._instances)]
        try:
            outer = now(instance.create_span("t:outer", payload={"amid": number}))
            inner = now(instance.create_span("t:inner", parent_span_id=outer))
            now(instance.finish_span(inner, {"r": 1}))
            now(instance.finish_span(outer))
        except BaseException as error:  # noqa: BLE001 -- who is interrupted must not see it
            self.errors.append(error)
        else:
            self.spans[instance.id] += [outer, inner]

    def check(self, puts: list[Operation]) -> None:
        """Each is there once, with what belongs to it, and the instances are as they should be."""
        assert self.errors == []
        keys = keys_by_instance(puts)
        for sequence in keys.values():
            check_sequence(sequence)
        parents = parents_of(puts)
        for instance, spans in self.spans.items():
            wanted = {f"{span}:{what}" for span in spans for what in ("create", "finish")}
            assert wanted <= set(keys[instance]), "lost"
            position = {key: number for number, key in enumerate(keys[instance])}
            for outer, inner in zip(spans[::2], spans[1::2], strict=True):
                assert parents[inner] == outer
                order = [f"{outer}:create", f"{inner}:create", f"{inner}:finish", f"{outer}:finish"]
                assert order == sorted(order, key=position.__getitem__)


async def nested_spans(instance: AgentInstanceHandle, spans: int, amid: Callable[[int], object]) -> None:
    """Record spans, nested and by hand, and leave something behind with each."""
    for number in range(spans):
        size = 20_000 if number % 10 == 0 else 10  # large ones are admitted at once
        async with instance.span("t:outer", payload={"x": "y" * size}) as outer:
            amid(number)
            async with instance.span("t:inner") as inner:
                amid(number + 1)
                inner.set_result({"n": number})
            await outer.complete()
        if number % 10 == 0:
            await asyncio.sleep(0)


@contextmanager
def eager_collector() -> Iterator[None]:
    """Have the collector run as often as it can."""
    before = gc.get_threshold()
    gc.collect()
    gc.set_threshold(1, 1, 1)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@pytest.mark.parametrize("max_items", [None, 300], ids=["roomy", "few"])
async def test_finalisers_that_record_amid_recording_lock_nobody_up_and_lose_nothing(
    max_items: int | None,
) -> None:
    async with emptied_elsewhere(max_items) as (client, queue, instances):
        notes = Notes(instances)
        numbers = iter(range(1 << 30))

        def leave_garbage(number: int) -> None:
            del number
            own = next(numbers)
            Gone(lambda: notes.record(own))

        def program(thread: int) -> Callable[[], Coroutine[Any, Any, None]]:
            return lambda: nested_spans(instances[thread // 2], 25, leave_garbage)

        gc.collect()
        gc.freeze()  # the collector is to be quick, and to find what is left here
        try:
            with watched(client) as watch, eager_collector():
                await each_in_its_loop(*map(program, range(THREADS)))
        finally:
            gc.unfreeze()
        gc.collect()
        finalised = THREADS * 25 * 2
        assert sum(map(len, notes.spans.values())) == 2 * finalised
        assert watch.looks > 0
        summary = await client.close(timeout=0)
        assert summary.put == 2 * len(instances) + THREADS * 25 * 4 + finalised * 4
        if max_items is None:
            assert len(queue.puts) == summary.put
            notes.check(queue.puts)
        else:
            assert notes.errors == []
            assert summary.put == summary.left + sum(summary.dropped.values())
            assert summary.left <= max_items


@contextmanager
def interrupted_by(handler: Callable[[], object], seconds: float) -> Iterator[Counter[str]]:
    """Have a signal handler called, in the main thread, after each so many seconds of processor time."""
    calls = Counter[str]()

    def handle(*_: object) -> None:
        calls["calls"] += 1
        handler()

    before = signal.signal(signal.SIGPROF, handle)
    signal.setitimer(signal.ITIMER_PROF, seconds, seconds)
    try:
        yield calls
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@pytest.mark.usefixtures("eager_switches")
@pytest.mark.parametrize("collecting", [False, True], ids=["alone", "with finalisers"])
async def test_signal_handlers_that_record_amid_recording_lock_nobody_up_and_lose_nothing(
    collecting: bool,
) -> None:
    async with emptied_elsewhere() as (client, queue, instances):
        notes, others = Notes(instances), Notes(instances)
        numbers, handled = iter(range(1 << 30)), iter(range(1 << 30))

        def leave_garbage(number: int) -> None:
            if collecting and number % 3 == 0:
                own = next(numbers)
                Gone(lambda: others.record(own))

        def program(thread: int) -> Callable[[], Coroutine[Any, Any, None]]:
            return lambda: nested_spans(instances[thread // 2], 40, leave_garbage)

        with watched(client), interrupted_by(lambda: notes.record(next(handled)), 0.002) as calls:
            agents = asyncio.create_task(each_in_its_loop(*map(program, range(1, THREADS))))
            # The main thread is the one that handlers interrupt.
            while not agents.done() or calls["calls"] < 50:
                await nested_spans(instances[0], 10, leave_garbage)
                await asyncio.sleep(0)
            await agents
        gc.collect()
        assert sum(map(len, notes.spans.values())) == 2 * calls["calls"]
        assert sum(map(len, others.spans.values())) == 2 * next(numbers)
        assert (await client.close(timeout=0)).put == len(queue.puts)
        notes.check(queue.puts)
        others.check(queue.puts)


# -- spans that nobody ends


async def test_spans_that_are_collected_open_in_any_thread_end_as_complete(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_emulator(tmp_path) as emulator:
        client = client_for(emulator.url)
        async with client:
            instance = await new_instance(client)
            opened: list[str] = []

            async def agent() -> None:
                for number in range(20):
                    schema = ("t:outer", "t:inner")[number % 2]
                    span = await instance.span(schema).__aenter__()
                    span.set_result({"got": "this far"})
                    if number % 3 == 0:
                        await span.start()
                    if number % 4 == 0:
                        cycle: list[object] = [span]
                        cycle.append(cycle)
                        del cycle
                    opened.append(span.id)
                    del span

            await each_in_its_loop(*[agent] * THREADS)
            gc.collect()
            await until(lambda: client.stats().open_spans == 0, DEADLINE)
            await instance.finish()
            assert (await client.close(timeout=DEADLINE)).complete
        spans = (await emulator.instance(instance.id))["spans"]
        assert sorted(span["id"] for span in spans) == sorted(opened)
        assert {span["status"] for span in spans} == {"complete"}
        assert all(span["result_payload"] == {"got": "this far"} for span in spans)
        said = [line for line in caplog.messages if "dropped without an end" in line]
        assert len(said) == 2
        assert {"t:outer" in line for line in said} == {True, False}


async def test_a_generator_that_is_closed_early_in_any_thread_ends_its_span_as_cancelled(
    tmp_path: Path,
) -> None:
    async with running_emulator(tmp_path) as emulator:
        client = client_for(emulator.url)
        async with client:
            instance = await new_instance(client)
            await instance.start()
            expected: dict[str, str] = {}

            async def steps(*, begin: bool) -> AsyncIterator[str]:
                async with instance.span("t:outer") as span:
                    if begin:
                        await span.start()
                    while True:
                        yield span.id

            async def agent() -> None:
                for number in range(6):
                    generator = steps(begin=number % 2 == 0)
                    async for span in generator:
                        expected[span] = "cancelled"
                        break
                    if number < 4:
                        await generator.aclose()  # type: ignore[attr-defined]
                # The others are left to the event loop, which closes them as it ends.

            await each_in_its_loop(*[agent] * THREADS)
            await until(lambda: client.stats().open_spans == 0, DEADLINE)
            await instance.finish()
            assert (await client.close(timeout=DEADLINE)).complete
        spans = (await emulator.instance(instance.id))["spans"]
        assert {span["id"]: span["status"] for span in spans} == expected
