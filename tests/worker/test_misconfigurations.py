"""What is wrong between a URL and a broker is said in words, and in one line."""

import asyncio
import http.server
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.brokers.rabbitmq_server import RabbitServer
from tests.support.brokers.redis_server import RedisServer
from tests.support.brokers.tls import make_certificate, rabbitmq_lines, redis_lines
from tests.support.ports import free_port
from tests.worker.commands import command

Case = tuple[str, str | None, Mapping[str, str]]
"""A URL, words that are expected (``None`` if all is well), and variables."""

_AT_ONCE = 4
_PERHAPS_TLS = "is the port right, and does it speak TLS (rediss://)?"
_NO_VHOST = "no virtual host of the name in the URL"
_NOT_RUNNING = "is it running, and are host and port right?"


@pytest.fixture
def web_port() -> Iterator[int]:
    """A port at which something speaks HTTP."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


async def _told(cases: Sequence[Case]) -> None:
    """Look at each URL, and hold what is printed against what is expected."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def told(case: Case) -> str | None:
        url, words, variables = case
        async with slots:
            done = await command("status", "--transport", url, **variables)
        if words is None:
            return None if done.status == 0 else f"{url}: {done.errors}"
        scheme = url.partition("://")[0]
        right = (
            done.status == 1
            and words in done.errors
            and (_NOT_RUNNING in words or _NOT_RUNNING not in done.errors)
            and (scheme not in {"amqps", "rediss"} or f"{scheme}://" in done.errors)
            and done.errors.count("\n") == 1
            and not any(one in done.errors for one in ("secret", " object at 0x"))
        )
        return None if right else f"{url}: {done.status} {done.errors}"

    wrong = [one for one in await asyncio.gather(*map(told, cases)) if one is not None]
    assert wrong == [], "\n".join(wrong)


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
    await _told(
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
    await _told(
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


@pytest.mark.timeout(600)  # twenty processes
async def test_a_missing_driver() -> None:
    slots = asyncio.Semaphore(_AT_ONCE)

    async def told(url: str, drivers: set[str], extra: str, words: list[str] | None) -> str | None:
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
        right = (
            f"is not installed: pip install 'prefactor-core[{extra}]'" in errors
            and errors.count("\n") == 1
            and process.returncode == (1 if words is None else 2)
            and errors.startswith("MissingDriverError" if words is None else "prefactor-worker: ")
        )
        return None if right else f"{url} {words}: {process.returncode} {errors}"

    drivers_of = {
        "redis://h": ({"redis", "hiredis"}, "redis"),
        "rediss://h": ({"redis", "hiredis"}, "redis"),
        "amqp://h": ({"aio_pika", "aiormq", "pamqp", "yarl"}, "rabbitmq"),
        "amqps://h": ({"aiormq"}, "rabbitmq"),
    }
    commands = (["run"], ["check"], ["status"], ["dead-letters", "list"], None)
    found = await asyncio.gather(
        *(told(url, *missing, words) for url, missing in drivers_of.items() for words in commands)
    )
    wrong = [one for one in found if one is not None]
    assert wrong == [], "\n".join(wrong)
