"""Clients that nobody holds any more and that nobody has closed."""

import asyncio
import gc
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from prefactor_core import PrefactorCoreClient, PrefactorCoreConfig
from prefactor_core.plugins import create_queue
from tests.client.load import VERSION, client_for, new_instance, nowhere, registry
from tests.support.emulator import Emulator, running_emulator
from tests.support.fleet import until

# Cancelled in its first step of connecting, anyio (below httpx) leaves a coroutine that was never awaited.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine 'connect_tcp:RuntimeWarning")

DROPPED: Final = "a client was dropped without close(), so it was closed with"
ENDED: Final = "ended without close()"
_DEADLINE: Final = 60.0

current_client: ContextVar[object] = ContextVar("current_client")


@pytest.fixture(autouse=True)
def quiet_httpx() -> None:
    logging.getLogger("httpx").setLevel(logging.WARNING)


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Leave everything to reference counts."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- names, and no paths


def usage() -> tuple[int, int]:
    """Return how many tasks and file descriptors there are."""
    return len(asyncio.all_tasks()), descriptors()


async def back_at(before: tuple[int, int]) -> None:
    """Wait until there are no more tasks and file descriptors than before."""
    await until(lambda: all(now <= then for now, then in zip(usage(), before, strict=True)))


def lines(caplog: pytest.LogCaptureFixture, beginning: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith(beginning)]


async def used(client: PrefactorCoreClient, *, flush: bool = False) -> None:
    """Initialise a client and put three operations with it; flush the first two."""
    await client.initialize()
    instance = await new_instance(client)
    await instance.start()
    if flush:
        assert await client.flush(_DEADLINE)
    await instance.finish()


@pytest.mark.usefixtures("no_collector")
async def test_two_hundred_dropped_clients_leave_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_emulator(tmp_path) as emulator:
        before = usage()
        for _ in range(200):
            await used(client_for(emulator.url))
        await back_at(before)
        assert lines(caplog, DROPPED) == [f"{DROPPED} 3 of 3 operations delivered"] * 200
        assert len(await emulator.effects()) == 600


async def test_two_hundred_clients_that_are_held_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_emulator(tmp_path) as emulator:
        before = usage()
        clients = [client_for(emulator.url) for _ in range(200)]
        for client in clients:
            await used(client)
        assert all([await client.flush(_DEADLINE) for client in clients])
        gc.collect()
        held = usage()
        for client in clients:
            await new_instance(client)
        summaries = [await client.close() for client in clients]
        del client, clients
        assert held[0] > before[0] + 200
        assert {summary.delivered for summary in summaries} == {4}
        await back_at(before)
        assert len(await emulator.effects()) == 800
        assert "without close()" not in caplog.text


@pytest.fixture
def broker_url(request: pytest.FixtureRequest) -> str:
    """A broker, under a prefix of the test's own."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    prefix: str = request.getfixturevalue(f"{request.param}_prefix")
    return f"{url}?prefix={prefix}"


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("broker_url", ["redis", "amqp"], indirect=True)
async def test_dropped_clients_of_a_broker_leave_nothing(
    broker_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = PrefactorCoreConfig(transport_url=broker_url, schema_registry=registry())
    before = usage()
    clients = [PrefactorCoreClient(config) for _ in range(20)]
    for client in clients:
        await used(client)
        assert await client.flush(_DEADLINE)  # it has connected
    for client in clients:
        await new_instance(client)
    del client, clients
    await back_at(before)
    assert lines(caplog, DROPPED) == [f"{DROPPED} 4 of 4 operations delivered"] * 20
    assert await depth_of(broker_url) == 80


async def depth_of(url: str) -> int:
    queue = create_queue(url, PrefactorCoreConfig())
    try:
        return await queue.depth()
    finally:
        await queue.disconnect()


# -- what keeps a client


async def _handle(client: PrefactorCoreClient) -> Callable[[], Awaitable[Any]]:
    return (await new_instance(client)).finish


async def _scope(client: PrefactorCoreClient) -> Callable[[], Awaitable[Any]]:
    scope = (await new_instance(client)).span("t:outer")

    async def use() -> None:
        async with scope as span:
            await span.start()

    return use


async def _span(client: PrefactorCoreClient) -> Callable[[], Awaitable[Any]]:
    span = await (await new_instance(client)).span("t:outer").__aenter__()
    return span.finish


async def _manager(client: PrefactorCoreClient) -> Callable[[], Awaitable[Any]]:
    schemas = {"external_identifier": "1", "span_schemas": {}}
    return partial(client.instance_manager.register, VERSION, schemas)


@pytest.mark.usefixtures("no_collector")
async def test_what_is_held_of_a_client_keeps_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running_emulator(tmp_path) as emulator:
        for hold in (_handle, _scope, _span, _manager):
            caplog.clear()
            before = len(await emulator.effects())
            client = client_for(emulator.url)
            await client.initialize()
            use = await hold(client)
            del client
            gc.collect()
            await asyncio.sleep(0.1)
            assert "without close()" not in caplog.text, hold
            held = len(await emulator.effects())
            await use()
            del use
            await until(lambda: "without close()" in caplog.text, message=str(hold))
            (line,) = lines(caplog, DROPPED)
            effects = len(await emulator.effects())
            assert line == f"{DROPPED} {effects - before} of {effects - before} operations delivered", hold
            assert effects > held, hold


@pytest.mark.usefixtures("no_collector")
async def test_the_context_in_which_a_client_was_initialised_does_not_keep_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def request(emulator: Emulator) -> None:
        client = client_for(emulator.url)
        current_client.set(client)
        await used(client)

    async with running_emulator(tmp_path) as emulator:
        await asyncio.create_task(request(emulator))
        await until(lambda: "without close()" in caplog.text)
        assert len(await emulator.effects()) == 3


# -- how it ends


async def test_what_cannot_be_delivered_in_time_is_told(caplog: pytest.LogCaptureFixture) -> None:
    before = usage()
    client = client_for(nowhere())
    client._config.close_timeout = 0.3
    await used(client)
    del client
    await back_at(before)
    (line,) = lines(caplog, DROPPED)
    assert line.startswith(f"{DROPPED} 0 of 3 operations delivered: 0 dead-lettered, 0 dropped, 3 left, ")


async def test_a_put_that_never_gets_room_does_not_keep_a_client(caplog: pytest.LogCaptureFixture) -> None:
    before = usage()
    client = client_for(nowhere())
    client._config.close_timeout = 0.3
    client._config.buffer_policy = "block"
    client._config.buffer_operations = 1
    await client.initialize()
    await new_instance(client)  # one that fills the buffer, and one beyond
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await new_instance(client)
    del client
    await back_at(before)
    (line,) = lines(caplog, DROPPED)
    assert line.startswith(f"{DROPPED} 0 of 2 operations delivered")


async def test_a_cycle_that_another_thread_collects(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Agent:
        def __init__(self, client: PrefactorCoreClient) -> None:
            self.client = client
            self.itself = self

    async with running_emulator(tmp_path) as emulator:
        gc.disable()
        try:
            before = usage()
            agent = Agent(client_for(emulator.url))
            await used(agent.client)
            del agent
            await asyncio.sleep(0.1)
            assert "without close()" not in caplog.text
            thread = threading.Thread(target=gc.collect)
            thread.start()
            await asyncio.to_thread(thread.join)
            await until(lambda: usage()[0] <= before[0])
        finally:
            gc.enable()
        assert lines(caplog, DROPPED) == [f"{DROPPED} 3 of 3 operations delivered"]
        assert len(await emulator.effects()) == 3


async def test_a_client_is_dropped_once_it_was_closed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_emulator(tmp_path) as emulator:
        client = client_for(emulator.url)
        await used(client)
        closing = asyncio.create_task(client.close())
        del client
        assert (await closing).complete
        del closing
        gc.collect()
        await asyncio.sleep(0.1)
        assert "without close()" not in caplog.text


def test_a_client_that_is_dropped_as_its_loop_ends_is_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def agent(turns: int) -> None:
        await used(client_for(nowhere()))
        for _ in range(turns):
            await asyncio.sleep(0)

    told = []
    for turns in range(8):
        caplog.clear()
        asyncio.run(agent(turns))
        gc.collect()
        told.append(lines(caplog, ENDED) + lines(caplog, DROPPED))
    assert [len(one) for one in told] == [1] * 8, told
    assert told[0] == [f"{ENDED}: 3 operations are undelivered"]
    assert "0 of 3 operations delivered" in told[-1][0]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_client_that_is_dropped_after_its_loop_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()
    client = client_for(nowhere())
    loop.run_until_complete(used(client))
    loop.close()  # and its tasks are what they are
    assert "without close()" not in caplog.text
    del client
    gc.collect()
    assert lines(caplog, ENDED) == [f"{ENDED}: 3 operations are undelivered"]
