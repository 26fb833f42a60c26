"""What agents are told that end without closing their client, and what is left of it."""

import asyncio
import gc
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from prefactor_core import (
    ClientAlreadyInitializedError,
    ClientClosedError,
    CloseSummary,
    InMemoryQueue,
    Operation,
    PrefactorCoreClient,
    PrefactorCoreConfig,
    PrefactorTelemetryFailureError,
    TaskExecutor,
)
from prefactor_core.plugins import create_queue
from tests.client.load import client_for, close_and_compare, new_instance, nowhere, registry
from tests.client.test_dropped_clients import depth_of, descriptors, lines, used
from tests.support.emulator import emulator_process, running_emulator
from tests.support.ending_program import ENDINGS
from tests.support.fleet import until
from tests.support.ports import free_port
from tests.support.recording import RecordingQueue

# Cancelled in its first step of connecting, anyio (below httpx) leaves a coroutine that was never awaited.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine 'connect_tcp:RuntimeWarning")

ENDED = "ended without close(): 2 operations are undelivered"
CLOSED = "closed with 0 of 2 operations delivered"
_AT_ONCE = 2
_CHILD_SECONDS = 60.0
_DEADLINE = 60.0


# -- the end of a process


@dataclass(frozen=True)
class End:
    """How a process ended, and the lines in which it told what is lost."""

    status: int | None
    said: list[str]
    errors: str


async def end_of(turns: asyncio.Semaphore, *arguments: str) -> End:
    async with turns, asyncio.timeout(_CHILD_SECONDS):
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-W",
            "default",
            "-m",
            "tests.support.ending_program",
            *arguments,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await child.communicate()
    text = errors.decode()
    said = [line for line in text.splitlines() if "operations are undelivered" in line or CLOSED in line]
    return End(child.returncode, said, text)


async def ends_of(*arguments: str, endings: list[str] | None = None) -> dict[str, End]:
    turns = asyncio.Semaphore(_AT_ONCE)
    names = endings or list(ENDINGS)
    ends = await asyncio.gather(*(end_of(turns, arguments[0], name, *arguments[1:]) for name in names))
    return dict(zip(names, ends, strict=True))


def broker_nowhere(scheme: str) -> str:
    return "memory://" if scheme == "memory" else f"{scheme}://127.0.0.1:{free_port()}"


@pytest.mark.parametrize("scheme", ["memory", "redis", "amqp"])
async def test_however_a_process_ends_or_leaves_its_client_it_says_once_what_is_lost(scheme: str) -> None:
    api = ("--api", nowhere())
    for pause in ("0", "0.3"):
        ends = await ends_of(broker_nowhere(scheme), "2", "--pause", pause, *api)
        assert {name: len(end.said) for name, end in ends.items()} == dict.fromkeys(ENDINGS, 1), pause
        assert all(end.said[0].endswith(ENDED) for end in ends.values()), (pause, ends)
        assert [name for name, end in ends.items() if end.status == 0] == ["return"], pause
    ends = await ends_of(broker_nowhere(scheme), "2", "--pause", "0.3", "--entered", *api)
    assert {name: len(end.said) for name, end in ends.items()} == dict.fromkeys(ENDINGS, 1)
    assert all(CLOSED in end.said[0] for end in ends.values()), ends


async def test_a_process_says_nothing_where_nothing_is_lost(tmp_path: Path) -> None:
    async with running_emulator(tmp_path) as emulator:
        for puts in ("0", "2"):
            ends = await ends_of("memory://", puts, "--flush", "--pause", "0.1", "--api", emulator.url)
            assert [end.said for end in ends.values()] == [[]] * len(ENDINGS)
            assert all("without" not in end.errors for end in ends.values())
            assert "ResourceWarning" not in ends["return"].errors
        assert len(await emulator.effects()) == 2 * len(ENDINGS)


async def test_nor_does_one_whose_broker_has_everything(
    redis_url: str, redis_prefix: str, amqp_url: str, amqp_prefix: str
) -> None:
    for url in (f"{redis_url}?prefix={redis_prefix}", f"{amqp_url}?prefix={amqp_prefix}"):
        for puts in ("0", "2"):
            ends = await ends_of(url, puts, "--flush", endings=["return", "SystemExit", "SIGINT"])
            assert [end.said for end in ends.values()] == [[]] * 3
            assert all("without" not in end.errors for end in ends.values())
            assert all("ResourceWarning" not in end.errors for end in ends.values())


def test_an_executor_by_itself_speaks_of_stop(caplog: pytest.LogCaptureFixture) -> None:
    async def never(_: object) -> None:
        await asyncio.Event().wait()

    async def use(items: int) -> None:
        queue = InMemoryQueue[int]()
        executor = TaskExecutor(queue, never)
        executor.start()
        for number in range(items):
            await queue.put(number)

    asyncio.run(use(0))
    assert lines(caplog, "ended") == []
    asyncio.run(use(5))
    assert lines(caplog, "ended") == ["ended without stop(): 5 operations are undelivered"]


def test_a_publisher_by_itself_speaks_of_disconnect(caplog: pytest.LogCaptureFixture) -> None:
    url = broker_nowhere("redis")

    async def use(operations: list[Operation]) -> None:
        queue = create_queue(url, PrefactorCoreConfig())
        for operation in operations:
            await queue.put(operation)

    source = RecordingQueue()

    async def fill() -> None:
        async with client_for(nowhere(), source) as client:
            client._config.close_timeout = 0
            await new_instance(client)

    asyncio.run(fill())
    caplog.clear()
    asyncio.run(use(source.puts))
    (line,) = lines(caplog, "ended")
    assert line.startswith("ended without disconnect(): redis://")
    assert line.endswith("has not confirmed 1 operations")


# -- the end of an event loop


async def test_a_client_goes_on_in_the_next_event_loop_fifty_times(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with emulator_process(tmp_path) as emulator:  # whose sockets do not count here
        client = client_for(emulator.url)

        def rounds() -> tuple[int, int]:
            asyncio.run(used(client, flush=True))
            gc.collect()
            before = descriptors()
            for _ in range(49):
                asyncio.run(used(client, flush=True))
            return before, descriptors()

        before, after = await asyncio.to_thread(rounds)
        said = lines(caplog, "ended without close(): 1 operations are undelivered")
        effects = await emulator.effects()
        assert after <= before
        assert len(said) == 50
        assert len(effects) == 100
        async with client:
            pass


@pytest.mark.parametrize("broker", ["redis", "amqp"])
def test_so_does_a_client_of_a_broker(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture, broker: str
) -> None:
    prefix = request.getfixturevalue(f"{broker}_prefix")
    url = f"{request.getfixturevalue(f'{broker}_url')}?prefix={prefix}"
    client = PrefactorCoreClient(PrefactorCoreConfig(transport_url=url, schema_registry=registry()))

    async def flushed() -> None:
        await used(client)
        assert await client.flush(30)

    async def last() -> int:
        await flushed()
        assert (await client.close()).complete
        return await depth_of(url)

    asyncio.run(flushed())
    gc.collect()
    before = descriptors()
    for _ in range(48):
        asyncio.run(flushed())
    after = descriptors()
    depth = asyncio.run(last())
    assert after <= before
    assert depth == 150
    assert "without close()" not in caplog.text


def test_in_the_next_event_loop_calls_are_refused_and_closing_tells_what_was_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = client_for(nowhere())
    asyncio.run(used(client))

    async def call() -> None:
        await new_instance(client)

    with pytest.raises(ClientClosedError, match="initialize"):
        asyncio.run(call())
    for _ in range(2):
        summary = asyncio.run(client.close())
        assert (summary.put, summary.delivered, summary.left) == (3, 0, 3)
    with pytest.raises(ClientClosedError):
        asyncio.run(call())
    assert [line for line in caplog.messages if "operations" in line] == [
        "ended without close(): 3 operations are undelivered"
    ]


def test_a_client_that_is_left_in_the_midst_of_closing_can_be_closed() -> None:
    client = client_for(nowhere())
    closing: list[asyncio.Task[object]] = []

    async def leave() -> None:
        await used(client)
        closing.append(asyncio.create_task(client.close(60)))
        await asyncio.sleep(0.05)

    asyncio.run(leave())
    assert closing[0].cancelled()
    assert asyncio.run(client.close()).left == 3


async def test_a_queue_of_the_users_goes_on_where_it_was(tmp_path: Path) -> None:
    queue = RecordingQueue()
    client = client_for(nowhere(), queue)
    await asyncio.to_thread(asyncio.run, used(client))
    assert queue.size() == 3
    async with running_emulator(tmp_path) as emulator:
        assert client._config.http_config is not None
        client._config.http_config = client._config.http_config.model_copy(update={"api_url": emulator.url})
        await used(client, flush=True)
        assert len(await close_and_compare(emulator, client, queue)) == 6


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_nor_does_it_matter_that_the_loop_was_closed_on_running_tasks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As asyncio.run does itself when a task exits the process."""
    queue = RecordingQueue()
    async with running_emulator(tmp_path, "--fault", "latency:ms=100") as emulator:
        client = client_for(emulator.url, queue)

        def leave(*, close: bool) -> None:
            loop = asyncio.new_event_loop()
            loop.run_until_complete(used(client))
            loop.run_until_complete(asyncio.sleep(0.05))  # it has taken what there is
            assert queue.size() == 0
            loop.close()
            if close:
                assert asyncio.run(client.close()).left > 0

        await asyncio.to_thread(leave, close=False)
        assert lines(caplog, "ended") == []
        await used(client, flush=True)
        assert lines(caplog, "ended") == ["ended without close(): 3 operations are undelivered"]
        await close_and_compare(emulator, client, queue)
        gc.collect()

    other = RecordingQueue()
    client = client_for(nowhere(), other)
    queue = other
    await asyncio.to_thread(leave, close=True)
    gc.collect()


async def test_a_client_is_flushed_and_closed_from_another_loop(tmp_path: Path) -> None:
    async with running_emulator(tmp_path) as emulator:
        client = client_for(emulator.url)
        await used(client)

        def elsewhere() -> CloseSummary:
            with pytest.raises(ClientAlreadyInitializedError):
                asyncio.run(client.initialize())
            assert asyncio.run(client.flush(_DEADLINE))
            return asyncio.run(client.close())

        summary = await asyncio.to_thread(elsewhere)
        assert (summary.delivered, summary.complete) == (3, True)
        assert await client.close() == summary


async def test_a_refused_token_is_raised_by_a_close_in_the_next_loop_too(tmp_path: Path) -> None:
    async with running_emulator(tmp_path, "--token", "another") as emulator:
        client = client_for(emulator.url)

        async def refused() -> None:
            await client.initialize()
            await until(lambda: _failed(client))

        await asyncio.to_thread(asyncio.run, refused())
        with pytest.raises(PrefactorTelemetryFailureError):
            await client.close()
        assert (await client.close()).complete, "raised once"
        await client.initialize()
        await client.close(0)


def _failed(client: PrefactorCoreClient) -> bool:
    try:
        _ = client.instance_manager
    except PrefactorTelemetryFailureError:
        return True
    return False


async def test_an_initialize_that_is_cancelled_leaves_nothing() -> None:
    client = client_for(nowhere())
    initialising = asyncio.create_task(client.initialize())
    await asyncio.sleep(0)
    initialising.cancel()
    await asyncio.wait([initialising])
    assert initialising.cancelled()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await client.initialize()
    await client.close()


_USE = """
import asyncio, logging, os, socket, sys, threading
from tests.client.load import client_for

logging.basicConfig(level=logging.WARNING)
silent = socket.create_server(("127.0.0.1", 0))  # a thread that logs as the interpreter exits could keep it
client = client_for(f"http://127.0.0.1:{silent.getsockname()[1]}")
loop = asyncio.new_event_loop()

async def use():
    await client.initialize()
    for _ in range(2):
        await client.create_agent_instance(agent_version={"name": "held", "external_identifier": "1"})
"""


_STOPPED = "loop.run_until_complete(use())"
_IN_A_THREAD = """
threading.Thread(target=loop.run_forever, daemon=True).start()
asyncio.run_coroutine_threadsafe(use(), loop).result()
"""
_DROPPED = """
async def drop():
    global client
    await use()
    del client

loop.run_until_complete(drop())
"""
_FORKED = """
async def fork():
    await use()
    child = os.fork()
    if child == 0:
        drop()
        sys.exit(3)
    _, status = os.waitpid(child, 0)
    os._exit(os.waitstatus_to_exitcode(status))

def drop():
    global client
    if {dropped}:
        del client

asyncio.run(fork())
"""


async def _errors_of(program: str, status: int) -> str:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _USE + program, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(_CHILD_SECONDS):
        _, errors = await child.communicate()
    assert child.returncode == status, errors
    return errors.decode()


@pytest.mark.parametrize(
    "run",
    [_STOPPED, _IN_A_THREAD, _DROPPED, _DROPPED + "loop.close()"],
    ids=["held, loop stopped", "held, loop in a thread", "dropped", "dropped, loop closed"],
)
async def test_a_client_held_or_dropped_until_the_interpreter_exits_says_what_is_lost(run: str) -> None:
    assert (await _errors_of(run, 0)).count(ENDED) == 1


@pytest.mark.parametrize("transport", ["memory://", "redis://127.0.0.1:9/0"])
async def test_a_fork_says_nothing_of_its_parents_client(transport: str) -> None:
    of_transport = f"client._config = client._config.model_copy(update={{'transport_url': {transport!r}}})\n"
    for dropped in (True, False):
        errors = await _errors_of(of_transport + _FORKED.format(dropped=dropped), 3)
        assert "undelivered" not in errors, dropped
        assert "has not confirmed" not in errors, dropped
