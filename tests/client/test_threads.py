"""One client and many threads, each with an event loop of its own."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, model_serializer

from prefactor_core import (
    ClientClosedError,
    ClientStats,
    InMemoryQueue,
    Operation,
    PrefactorCoreClient,
    PrefactorCoreConfig,
    PrefactorTelemetryFailureError,
)
from prefactor_core.broker.queue import BrokerQueue
from tests.client.load import client_for, new_instance, nowhere, registry
from tests.client.threads import (
    DEADLINE,
    THREADS,
    SharedLoad,
    Watch,
    check_account,
    check_everything,
    check_sequence,
    each_in_its_loop,
    emptied_elsewhere,
    keys_by_instance,
    noting,
    record_everything,
    record_plainly,
    settings,
    watched,
)
from tests.fleet.scenario import compared
from tests.support.emulator import Emulator, emulator_process, running_emulator
from tests.support.fleet import Fleet, running_fleet, until
from tests.support.recording import RecordingQueue


@pytest.fixture(params=["redis", "amqp"])
async def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Fleet]:
    """A worker, an emulator, and each broker under a prefix of the test's own."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    prefix: str = request.getfixturevalue(f"{request.param}_prefix")
    async with running_fleet(f"{url}?prefix={prefix}", tmp_path) as running:
        yield running


def broker_client(fleet: Fleet, **more: Any) -> tuple[PrefactorCoreClient, BrokerQueue]:
    """Return a client of a broker, and its queue."""
    config = PrefactorCoreConfig(transport_url=fleet.url, schema_registry=registry(), **more)
    queue = fleet.queue(**more)
    return PrefactorCoreClient(config, queue), queue


async def record_and_check(emulator: Emulator, instances: int, turns: int) -> SharedLoad:
    """Do so with a client of an API."""
    queue = RecordingQueue()
    client = client_for(emulator.url, queue)
    async with client:
        with watched(client) as watch:
            load, ids = await record_everything(client, instances, turns)
        summary = await client.close(timeout=DEADLINE)
    watch.check_end(summary.put)
    assert summary.complete, summary
    assert summary.put == len(queue.puts)
    await check_everything(emulator, load, ids, queue.puts)
    return load


@pytest.mark.usefixtures("eager_switches")
async def test_what_eight_threads_record_in_the_same_instances_takes_effect_once_and_in_order(
    tmp_path: Path,
) -> None:
    async with running_emulator(tmp_path) as emulator:
        load = await record_and_check(emulator, instances=16, turns=1)
        assert len(load.parents) > 1_000


async def test_eight_threads_record_forty_thousand_spans_of_four_hundred_instances(tmp_path: Path) -> None:
    async with emulator_process(tmp_path) as emulator:
        load = await record_and_check(emulator, instances=400, turns=2)
        assert len(load.parents) > 40_000


async def test_eight_threads_record_forty_thousand_spans_by_way_of_a_broker(fleet: Fleet) -> None:
    client, queue = broker_client(fleet, buffer_operations=200_000)
    await fleet.worker()
    with noting(queue) as noted:
        async with client:
            with watched(client) as watch:
                load, ids = await record_everything(client, instances=400, turns=2)
            summary = await client.close(timeout=DEADLINE)
    watch.check_end(summary.put)
    assert summary.complete, summary
    assert summary.put == len(noted)
    assert len(load.parents) > 40_000
    await until(lambda: fleet.effects_are(len(noted)), DEADLINE)
    found = compared(noted, fleet.emulator)
    assert (found.lost, found.doubled, found.out_of_order, found.unexpected) == (0, 0, 0, 0)
    await check_everything(fleet.emulator, load, ids, noted)


@pytest.mark.usefixtures("eager_switches")
@pytest.mark.parametrize(
    "bounds", [{}, {"buffer_operations": 200}, {"buffer_bytes": 100_000}], ids=["roomy", "few", "small"]
)
@pytest.mark.parametrize("available", [True, False], ids=["available", "unavailable"])
async def test_the_account_is_exact_while_threads_record(
    tmp_path: Path, bounds: dict[str, int], available: bool
) -> None:
    async with running_emulator(tmp_path) as emulator:
        client = PrefactorCoreClient(settings(emulator.url if available else nowhere(), **bounds))
        async with client:
            with watched(client) as watch:
                await record_plainly(client, watch, spans=150)
            check_account(client.stats())
            summary = await client.close(timeout=DEADLINE if available else 0)
    assert summary.put == sum(watch.returned) == THREADS * 300 + THREADS
    assert watch.looks > 10
    dropped = sum(summary.dropped.values())
    if available:
        assert (summary.delivered + dropped, summary.left) == (summary.put, 0)
    else:
        assert (summary.delivered, summary.left + dropped) == (0, summary.put)
        assert (dropped > 0) == bool(bounds)


@pytest.mark.parametrize("bounds", [{}, {"buffer_operations": 200}], ids=["roomy", "few"])
async def test_the_account_of_a_client_of_a_broker_is_exact_while_threads_record(
    fleet: Fleet, bounds: dict[str, int]
) -> None:
    client, queue = broker_client(fleet, **bounds)
    with noting(queue) as noted:
        async with client:
            with watched(client) as watch:
                await record_plainly(client, watch, spans=300)
            summary = await client.close(timeout=DEADLINE)
    assert summary.put == sum(watch.returned) == len(noted) == THREADS * 600 + THREADS
    assert summary.delivered + sum(summary.dropped.values()) == summary.put
    await fleet.drain(DEADLINE)
    assert await fleet.effects() == summary.delivered


# -- callers that wait for room


@pytest.mark.usefixtures("eager_switches")
async def test_callers_that_wait_for_room_lose_nothing_and_hardly_overfill_the_buffer(tmp_path: Path) -> None:
    async with running_emulator(tmp_path) as emulator:
        queue: InMemoryQueue[Operation] = InMemoryQueue(20, policy="block")
        client = PrefactorCoreClient(settings(emulator.url), queue)
        held: list[int] = []
        async with client:
            with watched(client, lambda: held.append(queue._intake.held)) as watch:
                await record_plainly(client, watch, spans=60)
            summary = await client.close(timeout=DEADLINE)
        assert summary.complete, summary
        assert summary.put == sum(watch.returned)
        assert max(held) <= 20 + THREADS, "more than one operation too many for each thread"
        assert len(await emulator.effects()) == summary.put


async def test_tasks_that_wait_for_room_in_many_loops_hardly_overfill_the_buffer() -> None:
    client = PrefactorCoreClient(settings(nowhere(), buffer_operations=20, buffer_policy="block"))
    tasks_each = 10
    async with client:
        instance = await new_instance(client)
        await instance.start()
        held = threading.Semaphore(0)

        async def agent() -> None:
            async def task() -> None:
                with suppress(ClientClosedError):
                    while True:
                        held.release()
                        await instance.create_span("t:by-hand")

            await asyncio.gather(*(task() for _ in range(tasks_each)))

        agents = asyncio.create_task(each_in_its_loop(*[agent] * THREADS))
        stuck = await until_still(client)
        assert 20 < stuck.put <= 20 + THREADS * tasks_each
        summary = await client.close(timeout=0)
        async with asyncio.timeout(DEADLINE):
            await agents
    assert summary.put == stuck.put == summary.left


async def until_still(client: PrefactorCoreClient) -> ClientStats:
    """Wait until a client's account has not changed for a while: everybody waits."""
    before, same = client.stats(), 0
    async with asyncio.timeout(DEADLINE):
        while same < 10:
            await asyncio.sleep(0.05)
            now = client.stats()
            same = same + 1 if now.put == before.put else 0
            before = now
    return before


@pytest.mark.usefixtures("eager_switches")
async def test_a_close_wakes_all_threads_that_wait_for_room() -> None:
    client = PrefactorCoreClient(settings(nowhere(), buffer_operations=20, buffer_policy="block"))
    async with client:
        with watched(client) as watch:
            agents = asyncio.create_task(
                record_plainly(client, watch, spans=None, until_error=ClientClosedError)
            )
            stuck = await until_still(client)
            assert stuck.put <= 20 + THREADS
            summary = await client.close(timeout=0)
            async with asyncio.timeout(DEADLINE):
                await agents
    assert summary.put == sum(watch.returned) == summary.left


# -- the end


@pytest.mark.usefixtures("eager_switches")
@pytest.mark.parametrize("timeout", [0, DEADLINE], ids=["at once", "in time"])
async def test_what_was_recorded_as_the_client_closed_is_in_the_summary_and_nothing_else(
    tmp_path: Path, timeout: float
) -> None:
    async with running_emulator(tmp_path) as emulator:
        for turn in range(5):
            queue = RecordingQueue()
            client = client_for(emulator.url, queue)
            await client.initialize()
            watch = Watch(client)
            agents = asyncio.create_task(
                record_plainly(client, watch, spans=None, until_error=ClientClosedError)
            )
            await until(lambda: min(watch.returned) > 10 * turn, DEADLINE)  # noqa: B023 -- ends in this turn
            summary = await client.close(timeout=timeout)
            async with asyncio.timeout(DEADLINE):
                await agents
            assert summary.put == sum(watch.returned) == len(queue.puts)
            assert summary.delivered + summary.left == summary.put
            assert await client.close() == summary
            assert queue.put_count == summary.put, "something was recorded after the summary"
            for keys in keys_by_instance(queue.puts).values():
                check_sequence(keys)


async def test_what_was_recorded_as_a_client_of_a_broker_closed_is_in_the_summary(fleet: Fleet) -> None:
    for turn in range(5):
        client, queue = broker_client(fleet)
        with noting(queue) as noted:
            await client.initialize()
            watch = Watch(client)
            agents = asyncio.create_task(
                record_plainly(client, watch, spans=None, until_error=ClientClosedError)
            )
            await until(lambda: min(watch.returned) > 10 * turn, DEADLINE)  # noqa: B023 -- ends in this turn
            summary = await client.close(timeout=DEADLINE)
            async with asyncio.timeout(DEADLINE):
                await agents
        assert summary.put == sum(watch.returned) == len(noted) == queue.put_count
        assert (summary.delivered + sum(summary.dropped.values()), summary.left) == (summary.put, 0)


@pytest.mark.usefixtures("eager_switches")
async def test_instances_that_end_as_the_client_closes_are_in_the_summary_whole(tmp_path: Path) -> None:
    """A finish forgets its instance, and a quality of another process's instance never knew it."""
    async with running_emulator(tmp_path) as emulator:
        for _ in range(5):
            queue = RecordingQueue()
            client = client_for(emulator.url, queue)
            await client.initialize()
            watch = Watch(client)
            foreign = "0" + "9" * 31

            def program(thread: int) -> Callable[[], Coroutine[Any, Any, None]]:
                async def agent() -> None:
                    with pytest.raises(ClientClosedError):
                        while True:
                            handle = await new_instance(client)  # noqa: B023 -- ends in this turn
                            watch.returned[thread] += 1  # noqa: B023
                            await handle.start()
                            watch.returned[thread] += 1  # noqa: B023
                            await handle.finish()
                            watch.returned[thread] += 1  # noqa: B023
                            await client.record_quality(foreign, "tone", {"score": 1})  # noqa: B023
                            watch.returned[thread] += 1  # noqa: B023

                return agent

            agents = asyncio.create_task(each_in_its_loop(*map(program, range(THREADS))))
            await until(lambda: min(watch.returned) > 20, DEADLINE)  # noqa: B023
            summary = await client.close(timeout=0)
            async with asyncio.timeout(DEADLINE):
                await agents
            assert summary.put == sum(watch.returned) == len(queue.puts) == queue.put_count


async def test_a_finish_that_a_close_overtakes_is_refused() -> None:
    """It has passed the gate, and then the client is closed and lets go of its spans, before it goes on."""

    class Slow(BaseModel):
        @model_serializer
        def as_json(self) -> dict[str, int]:
            close_all()
            return {"a": 1}

    async with emptied_elsewhere() as (client, queue, (instance, *_)):
        span = await instance.create_span("t:by-hand")
        session = client._session
        assert session is not None
        gate, put = session.lifetime.gate, queue.put_count

        def close_all() -> None:
            gate.shut()
            gate.let_go()

        with pytest.raises(ClientClosedError):
            await instance.finish_span(span, Slow())  # type: ignore[arg-type]
        assert queue.put_count == put


@pytest.mark.usefixtures("eager_switches")
async def test_a_refused_token_is_raised_in_every_thread_and_the_account_adds_up(tmp_path: Path) -> None:
    async with running_emulator(tmp_path, "--token", "another") as emulator:
        for _ in range(3):
            queue = RecordingQueue()
            client = client_for(emulator.url, queue)
            await client.initialize()
            with watched(client) as watch:
                async with asyncio.timeout(DEADLINE):
                    await record_plainly(
                        client, watch, spans=None, until_error=PrefactorTelemetryFailureError
                    )
                returned = sum(watch.returned)
                await until(lambda: sum(client.stats().dropped.values()) == returned)  # noqa: B023
            with pytest.raises(PrefactorTelemetryFailureError) as caught:
                await client.close()
            assert caught.value.dropped_operations == returned + THREADS, "one refused call of each thread"
            summary = await client.close()
            assert (summary.put, summary.dropped) == (returned, {"discarded": returned})
            assert len(queue.puts) == queue.put_count == returned
            assert queue.unsettled == 0
