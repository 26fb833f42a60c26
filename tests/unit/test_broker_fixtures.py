"""Where brokers for tests come from, and a proxy that breaks connections the way networks do."""

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.brokers.ports import BUS, lasting_port
from tests.support.brokers.process import ServerProcess
from tests.support.brokers.proxy import Proxy
from tests.support.brokers.sources import RABBITMQ, REDIS, Broker, Source, decide_any, decide_own
from tests.support.brokers.waiting import wait_until

Answer = Callable[[], bool]


def yes() -> bool:
    return True


def no() -> bool:
    return False


def never_asked() -> bool:
    raise AssertionError("nobody should have asked")


@pytest.mark.parametrize(
    ("environ", "docker", "programs", "expected"),
    [
        ({"PREFACTOR_TEST_REDIS_URL": "redis://there:1/0"}, never_asked, never_asked, Source.ENVIRONMENT),
        ({"PREFACTOR_TEST_REDIS_URL": ""}, yes, never_asked, Source.DOCKER),
        ({"PREFACTOR_TEST_AMQP_URL": "amqp://there/"}, yes, never_asked, Source.DOCKER),
        ({}, no, yes, Source.PROGRAMS),
        ({"PREFACTOR_TEST_REQUIRE": "redis"}, no, yes, Source.PROGRAMS),
        ({}, no, no, Source.SKIP),
        ({"PREFACTOR_TEST_REQUIRE": "rabbitmq"}, no, no, Source.SKIP),
        ({"PREFACTOR_TEST_REQUIRE": "rabbitmq, redis"}, no, no, Source.FAIL),
    ],
)
def test_a_shared_broker_comes_from_the_first_place_that_has_one(
    environ: dict[str, str], docker: Answer, programs: Answer, expected: Source
) -> None:
    assert decide_any(REDIS, environ, docker, programs).source is expected


def test_the_address_from_the_environment_is_taken_as_it_is() -> None:
    environ = {RABBITMQ.variable: "amqp://user:secret@there:1/vhost"}
    assert decide_any(RABBITMQ, environ, no, no).text == "amqp://user:secret@there:1/vhost"


@pytest.mark.parametrize(
    ("environ", "programs", "expected"),
    [
        ({"PREFACTOR_TEST_REDIS_URL": "redis://there:1/0"}, yes, Source.PROGRAMS),
        ({"PREFACTOR_TEST_REDIS_URL": "redis://there:1/0"}, no, Source.SKIP),
        ({"PREFACTOR_TEST_REQUIRE": "redis"}, no, Source.FAIL),
    ],
)
def test_a_broker_to_kill_is_never_somebody_elses(
    environ: dict[str, str], programs: Answer, expected: Source
) -> None:
    assert decide_own(REDIS, environ, programs).source is expected


@pytest.mark.parametrize("broker", [REDIS, RABBITMQ], ids=lambda broker: str(broker.name))
def test_the_reason_says_what_to_install(broker: Broker) -> None:
    assert f"apt-get install {broker.package}" in decide_any(broker, {}, no, no).text
    assert broker.variable in decide_any(broker, {}, no, no).text
    assert f"apt-get install {broker.package}" in decide_own(broker, {}, no).text
    assert "PREFACTOR_TEST_REQUIRE" in decide_own(broker, {"PREFACTOR_TEST_REQUIRE": broker.name}, no).text


def test_a_misspelt_requirement_is_an_error() -> None:
    with pytest.raises(ValueError, match="knows redis, rabbitmq, not rabbit"):
        decide_own(REDIS, {"PREFACTOR_TEST_REQUIRE": "rabbit"}, no)


def test_ports_are_given_once_and_leave_room_for_a_second_one() -> None:
    ports = [lasting_port() for _ in range(50)]
    assert len(set(ports)) == len(ports)
    assert max(ports) + BUS < 32_768


def test_waiting_ends_with_what_the_last_answer_was() -> None:
    def refused() -> bool:
        raise ConnectionRefusedError("nobody there")

    with pytest.raises(TimeoutError, match=r"a door that opens.*nobody there.*\nthe log"):
        wait_until(refused, "a door that opens", seconds=0.05, pause=0.01, details=lambda: "the log")


def sleeper(folder: Path) -> ServerProcess:
    process = ServerProcess(folder / "server.log")
    process.start([sys.executable, "-c", "import time; print('awake', flush=True); time.sleep(60)"])
    wait_until(lambda: "awake" in process.tail(), "a program that runs", seconds=20)
    return process


def test_a_process_is_killed_frozen_and_started_again(tmp_path: Path) -> None:
    process = sleeper(tmp_path)
    process.freeze()
    assert process.pid > 0
    process.stop(seconds=5)  # also from the ice
    assert process.pid == 0
    process.start([sys.executable, "-c", "print('again')"])
    wait_until(lambda: not process.running, "its end", seconds=20)
    assert "again" in process.tail()


def test_nothing_is_signalled_that_has_ended_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = sleeper(tmp_path)
    os.kill(process.pid, signal.SIGTERM)
    wait_until(lambda: not process.running, "its end", seconds=20)
    monkeypatch.setattr(os, "killpg", lambda *_: never_asked())
    process.kill()
    process.stop()
    with pytest.raises(RuntimeError, match="only what is running"):
        process.freeze()


def test_a_process_is_not_started_twice(tmp_path: Path) -> None:
    process = sleeper(tmp_path)
    try:
        with pytest.raises(RuntimeError, match="running already"):
            process.start([sys.executable, "-c", ""])
    finally:
        process.kill()


def test_a_test_run_that_is_killed_leaves_no_server_behind(tmp_path: Path) -> None:
    port = lasting_port()
    program = f"""
import os, pathlib, signal, socket, sys
from tests.support.brokers.process import ServerProcess
from tests.support.brokers.waiting import wait_until
process = ServerProcess(pathlib.Path({str(tmp_path)!r}) / "server.log")
server = "import socket, time; one = socket.create_server(('127.0.0.1', {port})); time.sleep(60)"
process.start([sys.executable, "-c", server])
wait_until(lambda: socket.create_connection(("127.0.0.1", {port})), "a server", seconds=20)
process.freeze()
os.kill(os.getpid(), signal.SIGKILL)
"""
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", program], cwd=root, check=False)
    assert run.returncode == -signal.SIGKILL

    def is_gone() -> bool:  # a frozen one still has its port
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED

    wait_until(is_gone, "the end of the server", seconds=20)


class Wire:
    """A connection through the proxy to a server that repeats what it hears."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, words: bytes) -> bytes:
        self.writer.write(words)
        async with asyncio.timeout(5):
            return await self.reader.readexactly(len(words))

    async def hears_nothing(self) -> bool:
        try:
            async with asyncio.timeout(0.1):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False


class Echo:
    """What the proxy stands in front of."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.ended = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(1_000):
                self.heard += piece
                writer.write(piece)
                await writer.drain()
        except ConnectionResetError:
            pass
        finally:
            writer.close()
            self.ended.set()


@pytest.fixture
async def echo() -> AsyncIterator[tuple[Echo, Proxy]]:
    served = Echo()
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    before = asyncio.all_tasks()
    async with server, Proxy(*server.sockets[0].getsockname()) as proxy:
        yield served, proxy
        await proxy.close()
        left = [task for task in asyncio.all_tasks() - before if task.get_name() == "proxy-connection"]
        assert not left
        assert proxy.open_connections == 0
        async with asyncio.timeout(5):
            while asyncio.all_tasks() - before - {asyncio.current_task()}:  # the echoes hear of the end
                await asyncio.sleep(0.01)


@asynccontextmanager
async def wired(proxy: Proxy) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


async def test_a_normal_proxy_passes_everything_on_and_the_end_too(echo: tuple[Echo, Proxy]) -> None:
    served, proxy = echo
    async with wired(proxy) as wire:
        assert await wire.ask(b"x" * 100_000) == b"x" * 100_000
        wire.writer.write_eof()
        async with asyncio.timeout(5):
            assert await wire.reader.read() == b""
            await served.ended.wait()
    assert proxy.accepted == 1


async def test_a_reset_reaches_both_sides(echo: tuple[Echo, Proxy]) -> None:
    served, proxy = echo
    async with wired(proxy) as wire:
        assert await wire.ask(b"hello") == b"hello"
        await proxy.reset()
        with pytest.raises(ConnectionResetError):
            await wire.reader.readexactly(1)
        async with asyncio.timeout(5):
            await served.ended.wait()
    async with wired(proxy) as wire:
        assert await wire.ask(b"again") == b"again"


async def test_a_swallowing_proxy_is_silent_and_what_lost_bytes_never_goes_on(
    echo: tuple[Echo, Proxy],
) -> None:
    served, proxy = echo
    async with wired(proxy) as used, wired(proxy) as idle:
        assert await used.ask(b"before") == b"before"
        assert await idle.ask(b"idle") == b"idle"
        proxy.swallow()
        used.writer.write(b"lost")
        assert await used.hears_nothing()
        async with wired(proxy) as new:
            new.writer.write(b"lost too")
            assert await new.hears_nothing()
        assert bytes(served.heard) == b"beforeidle"
        await proxy.normal()
        with pytest.raises(ConnectionResetError):
            await used.reader.readexactly(1)
        assert await idle.ask(b"after") == b"after"


async def test_dropped_replies_belong_to_requests_that_were_heard(echo: tuple[Echo, Proxy]) -> None:
    served, proxy = echo
    async with wired(proxy) as wire:
        proxy.drop_replies()
        wire.writer.write(b"done")
        assert await wire.hears_nothing()
        assert bytes(served.heard) == b"done"
        await proxy.normal()
        with pytest.raises(ConnectionResetError):
            await wire.reader.readexactly(1)


async def test_slices_are_of_one_byte(echo: tuple[Echo, Proxy]) -> None:
    _, proxy = echo
    proxy.slice_replies()
    async with wired(proxy) as wire:
        wire.writer.write(b"slices")
        async with asyncio.timeout(5):
            assert [await wire.reader.read(100) for _ in b"slices"] == [b"s", b"l", b"i", b"c", b"e", b"s"]
        await proxy.normal()
        assert await wire.ask(b"whole") == b"whole"


async def test_a_refusing_proxy_keeps_what_it_has_and_comes_back_on_its_port(
    echo: tuple[Echo, Proxy],
) -> None:
    _, proxy = echo
    port = proxy.port
    async with wired(proxy) as wire:
        assert await wire.ask(b"before") == b"before"
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(proxy.host, port)
        assert await wire.ask(b"still") == b"still"
        await proxy.normal()
        assert proxy.port == port
        async with wired(proxy) as new:
            assert await new.ask(b"after") == b"after"


async def test_a_target_that_is_away_is_a_reset() -> None:
    async with Proxy("127.0.0.1", lasting_port()) as proxy, wired(proxy) as wire:
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(5):
                await wire.reader.readexactly(1)


async def test_the_address_of_a_proxy_is_that_of_its_target_but_for_the_place() -> None:
    target = "amqp://guest:guest@127.0.0.1:5672/vhost?heartbeat=1"
    async with Proxy.before(target) as proxy:
        assert proxy.url(target) == f"amqp://guest:guest@127.0.0.1:{proxy.port}/vhost?heartbeat=1"
    with pytest.raises(ValueError, match="no host and port"):
        Proxy.before("redis:///0")
