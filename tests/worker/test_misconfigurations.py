"""What is wrong between a URL and a broker is said in words, and in one line."""

import asyncio
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path

import pytest

from tests.support.brokers.rabbitmq_server import RabbitServer
from tests.support.brokers.redis_server import RedisServer
from tests.support.brokers.tls import make_certificate, rabbitmq_lines, redis_lines
from tests.support.ports import free_port
from tests.worker.commands import AWAY, RUN, command, web_page

Case = tuple[str, str | None, Mapping[str, str]]
"""A URL, words that are expected (``None`` if all is well), and variables."""

_AT_ONCE = 4
_PERHAPS_TLS = "is the port right, and does it speak TLS (rediss://)?"
_NO_VHOST = "no virtual host of the name in the URL"
_NOT_RUNNING = "is it running, and are host and port right?"


@pytest.fixture
def web_port() -> Iterator[int]:
    """A port at which something speaks HTTP."""
    with web_page(HTTPStatus.OK) as port:
        yield port


OUTAGES = {
    f"status --transport {AWAY}": "127.0.0.1",
    f"status --transport {AWAY.replace('redis:', 'amqp:')}": "127.0.0.1",
    f"dead-letters list --json --transport {AWAY}": "cannot be reached",
    f"dead-letters show an-id --transport {AWAY}": "cannot be reached",
}
MISTAKES = {
    "status": "PREFACTOR_TRANSPORT_URL",
    "status --transport memory://": "is no broker",
    f"dead-letters replay --transport {AWAY}": "which ones? Name operations, or select some",
    f"dead-letters purge an-id --all --yes --transport {AWAY}": "one of them",
    f"dead-letters purge --reason= --yes --transport {AWAY}": "is empty",
    f"dead-letters list --type create --transport {AWAY}": "--type is one of register_agent_instance, ",
    "check": "nothing to check: give --transport, or --api-url, or both",
    "check --transport redis://here/?lease=secret": "Invalid value for --transport: ",
    "check --api-url secret": "Invalid value for --api-url: ",
    "check --api-url http://me:secret@h/api/v1": "leave it out, and write http://h",
    "check --strict --api-url http://h": "--strict is about a broker: give --transport",
    "check --transport redis://h --max-age 5": "--max-age and --max-backlog are for --strict",
    "check --transport redis://h --max-backlog 5": "--max-age and --max-backlog are for --strict",
}
MISTAKES_OF_RUN = {
    "--transport kafka://localhost": "no transport for kafka://",
    "--transport memory://": "never leave the agent's process",
    f"--transport {AWAY}?colour=red": "option colour",
    f"--transport {AWAY}?lease=soon": "option lease",
    "--transport amqp://localhost?heartbeat=never": "option heartbeat",
    "--transport kafka: --processes 3": "no transport for kafka://",
    "--api-token-file /nowhere/token": "No such file",
    f"--api-token-file {os.devnull}": "holds no token",
    "--concurrency 0": "--concurrency",
    "--api-url localhost": "api_url",
    "--api-url http://h/api/v1": "leave it out, and write http://h",
    "--tranport redis://localhost": "--tranport",
}
WRONG_VARIABLES = {
    ("PREFACTOR_TRANSPORT_URL", ""): "--transport",
    ("PREFACTOR_TRANSPORT_URL", "kafka://localhost"): "no transport for kafka://",
    ("PREFACTOR_API_TOKEN", ""): "PREFACTOR_API_TOKEN",
    ("PREFACTOR_API_TOKEN", "a\nb"): "PREFACTOR_API_TOKEN",
    ("PREFACTOR_CONCURRENCY", "many"): "PREFACTOR_CONCURRENCY",
    ("PREFACTOR_BATCH", "100000"): "PREFACTOR_BATCH",
    ("PREFACTOR_GRACE", "-1"): "PREFACTOR_GRACE",
    ("PREFACTOR_LOG_FORMAT", "xml"): "PREFACTOR_LOG_FORMAT",
    ("PREFACTOR_DRAIN", "perhaps"): "PREFACTOR_DRAIN",
}


async def test_a_mistake_or_an_outage_is_told_in_one_line() -> None:
    cases = [
        *((line, {}, 1, words) for line, words in OUTAGES.items()),
        *((line, {}, 2, words) for line, words in MISTAKES.items()),
        *((f"run {line}", RUN, 2, words) for line, words in MISTAKES_OF_RUN.items()),
        *(("run", RUN | {name: value}, 2, words) for (name, value), words in WRONG_VARIABLES.items()),
    ]
    slots = asyncio.Semaphore(_AT_ONCE)

    async def check(line: str, variables: dict[str, str], status: int, words: str) -> None:
        async with slots:
            done = await command(*line.split(), **variables)
        assert (done.status, done.output) == (status, ""), (line, variables)
        assert re.fullmatch(r"prefactor-worker: [^\n]+\n", done.errors), (line, variables, done.errors)
        assert words in done.errors, (line, variables)
        assert "secret" not in done.errors, (line, variables)

    await asyncio.gather(*(check(*case) for case in cases))


async def _check(cases: Sequence[Case]) -> None:
    """Look at each URL, and hold what is printed against what is expected."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def check(url: str, words: str | None, variables: Mapping[str, str]) -> None:
        async with slots:
            done = await command("status", "--transport", url, **variables)
        if words is None:
            assert done.status == 0, (url, done)
            return
        assert done.status == 1, (url, done)
        assert words in done.errors, (url, done)
        assert _NOT_RUNNING in words or _NOT_RUNNING not in done.errors, (url, done)
        if (scheme := url.partition("://")[0]) in {"amqps", "rediss"}:
            assert f"{scheme}://" in done.errors, (url, done)
        assert done.errors.count("\n") == 1, (url, done)
        assert not any(one in done.errors for one in ("secret", " object at 0x")), (url, done)

    await asyncio.gather(*(check(*case) for case in cases))


async def test_rabbitmq(
    make_rabbit_server: Callable[..., RabbitServer],
    redis_server: RedisServer,
    web_port: int,
    tmp_path: Path,
) -> None:
    certificate = await asyncio.to_thread(make_certificate, tmp_path, "localhost")
    tls = free_port()
    server = await asyncio.to_thread(make_rabbit_server, *rabbitmq_lines(certificate, tls))
    await asyncio.to_thread(server.ctl, "add_user", "stranger", "pw")
    here, trusted = "127.0.0.1", {"SSL_CERT_FILE": str(certificate.file)}
    await _check(
        [
            (server.url, None, {}),
            (f"amqp://{here}:{free_port()}/", _NOT_RUNNING, {}),
            ("amqp://no-such-host.invalid/", _NOT_RUNNING, {}),
            (f"amqp://guest:secret@{here}:{server.port}/", "does not accept the user and password", {}),
            (f"amqp://guest:guest@{here}:{server.port}/nowhere", _NO_VHOST, {}),
            (f"amqp://stranger:pw@{here}:{server.port}/", "does not let this user into the virtual host", {}),
            (f"amqp://{here}:{web_port}/?timeout=3", "did not answer as RabbitMQ does", {}),
            (f"amqp://{here}:{redis_server.port}/?timeout=3", "did not answer as RabbitMQ does", {}),
            (f"amqp://guest:guest@localhost:{tls}/", "amqps://", {}),
            (f"amqps://guest:guest@{here}:{server.port}/", "speaks no TLS on this port", {}),
            (f"amqps://{here}:{web_port}/", "speaks no TLS on this port", {}),
            (f"amqps://guest:guest@localhost:{tls}/", "not accepted: self-signed certificate", {}),
            (f"amqps://guest:guest@{here}:{tls}/", "not accepted: IP address mismatch", trusted),
            (f"amqps://guest:guest@localhost:{tls}/", None, trusted),
        ]
    )


async def test_redis(
    make_redis_server: Callable[..., RedisServer],
    rabbit_server: RabbitServer,
    web_port: int,
    tmp_path: Path,
) -> None:
    certificate = await asyncio.to_thread(make_certificate, tmp_path, "localhost")
    tls = free_port()
    server = await asyncio.to_thread(make_redis_server, *redis_lines(certificate, tls))
    here, trusted = "127.0.0.1", {"SSL_CERT_FILE": str(certificate.file)}
    await _check(
        [
            (server.url, None, {}),
            (f"redis://{here}:{free_port()}/", _NOT_RUNNING, {}),
            ("redis://no-such-host.invalid/", _NOT_RUNNING, {}),
            (f"redis://me:secret@{here}:{server.port}/", "does not accept the user and password", {}),
            (f"redis://{here}:{server.port}/99", "DB index is out of range", {}),
            (f"redis://{here}:{web_port}/?timeout=3", _PERHAPS_TLS, {}),
            (f"redis://{here}:{rabbit_server.port}/?timeout=3", _PERHAPS_TLS, {}),
            (f"redis://{here}:{tls}/?timeout=3", _PERHAPS_TLS, {}),
            (f"rediss://{here}:{server.port}/?timeout=3", "does it speak TLS on this port", {}),
            (f"rediss://{here}:{web_port}/?timeout=3", "TLS on this port", {}),
            (f"rediss://localhost:{tls}/", "not accepted: self-signed certificate", {}),
            (f"rediss://{here}:{tls}/", "not accepted: IP address mismatch", trusted),
            (f"rediss://localhost:{tls}/", None, trusted),
        ]
    )


# -- without a driver

_WITHOUT = """
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {drivers!r}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)
sys.meta_path.insert(0, Missing())
"""
_COMMAND = """
sys.argv = ['prefactor-worker', *{words!r}, '--transport', {url!r}]
from prefactor_worker.entry import main
main()
"""
_AGENT = """
import asyncio
from prefactor_core import PrefactorCoreClient, PrefactorCoreConfig
from prefactor_core.exceptions import MissingDriverError
async def main():
    await PrefactorCoreClient(PrefactorCoreConfig(transport_url={url!r})).initialize()
try:
    asyncio.run(main())
except MissingDriverError as error:
    sys.exit(f'MissingDriverError: {{error}}')
"""


async def test_a_missing_driver() -> None:
    slots = asyncio.Semaphore(_AT_ONCE)

    async def check(url: str, drivers: set[str], extra: str, words: list[str] | None) -> None:
        rest = _AGENT.format(url=url) if words is None else _COMMAND.format(url=url, words=words)
        async with slots:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", _WITHOUT.format(drivers=drivers) + rest),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env={"PREFACTOR_API_TOKEN": "token"},
            )
            _, output = await process.communicate()
        errors = output.decode()
        assert process.returncode == (1 if words is None else 2), (url, words, errors)
        begin = "MissingDriverError" if words is None else "prefactor-worker"
        line = rf"{begin}: .*is not installed: pip install 'prefactor-core\[{extra}\]'\n"
        assert re.fullmatch(line, errors), (url, words, errors)

    drivers_of = {
        "redis://h": ({"redis", "hiredis"}, "redis"),
        "rediss://h": ({"redis", "hiredis"}, "redis"),
        "amqp://h": ({"aio_pika", "aiormq", "pamqp", "yarl"}, "rabbitmq"),
        "amqps://h": ({"aiormq"}, "rabbitmq"),
    }
    commands = (["run"], ["check"], ["status"], ["dead-letters", "list"], None)
    await asyncio.gather(
        *(check(url, *missing, words) for url, missing in drivers_of.items() for words in commands)
    )
