"""The gauge of partitions that nobody owns."""

import asyncio
import math
import urllib.error
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from tests.emulator.driver import EmulatorProcess
from tests.support.operations import life
from tests.support.ports import free_port
from tests.worker.commands import PARTITIONS, open_queue, publish, watching

_TOKEN = "the-token-of-the-test"


def _unowned(port: int) -> float:
    """Return what a worker shows; NaN before it shows anything."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
            text = reply.read().decode()
    except urllib.error.URLError:
        return math.nan
    (value,) = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "prefactor_partitions_unowned"
    ]
    return value


async def _shows(expected: float, api: str, transport: str, token: str) -> None:
    """Run a worker until it shows so many partitions without an owner."""
    port = free_port()
    arguments = ("run", "--transport", transport, "--api-url", api, "--metrics-host", "127.0.0.1")
    async with (
        asyncio.timeout(60),
        watching(*arguments, "--metrics-port", str(port), PREFACTOR_API_TOKEN=token),
    ):
        while await asyncio.to_thread(_unowned, port) != expected:
            await asyncio.sleep(0.2)


async def test_partitions_without_an_owner_are_shown(transport_url: str) -> None:
    async with open_queue(transport_url) as queue:
        await publish(queue, life("only"))
    with EmulatorProcess("--token", _TOKEN) as emulator:
        # A worker whose token is refused leaves its partitions to others, and there are none.
        await _shows(PARTITIONS, emulator.url, transport_url, "another-token")
        await _shows(0, emulator.url, transport_url, _TOKEN)


async def test_a_broker_that_is_away_tells_nothing() -> None:
    port, gone = free_port(), f"redis://127.0.0.1:{free_port()}"
    arguments = ("run", "--transport", gone, "--metrics-host", "127.0.0.1", "--metrics-port", str(port))
    async with asyncio.timeout(60), watching(*arguments, PREFACTOR_API_TOKEN=_TOKEN) as worker:
        assert worker.process.stderr is not None
        while b"cannot be reached" not in await worker.process.stderr.readline():
            pass
        assert math.isnan(await asyncio.to_thread(_unowned, port))
