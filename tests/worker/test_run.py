"""How a worker runs and ends, with everything of its own but the broker, which is the tests'."""

import asyncio

import pytest

from prefactor_core.broker.queue import BrokerQueue
from prefactor_worker import broker as transports
from prefactor_worker.run import worker as module
from prefactor_worker.run.health import Health
from prefactor_worker.run.settings import RunSettings
from prefactor_worker.run.worker import Worker
from prefactor_worker.token import FixedToken
from tests.engine.setups import queue_on
from tests.support.fake_broker import FakeBroker
from tests.support.ports import free_port


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> FakeBroker:
    """Return the broker of every worker."""
    broker = FakeBroker(2)
    monkeypatch.setattr(transports, "create_queue", lambda *_: queue_on(broker))
    return broker


def settings(*, drain: bool = False) -> RunSettings:
    """Return those of a worker whose API is not there."""
    token = FixedToken("a", "the test")
    return RunSettings("test://", f"http://127.0.0.1:{free_port()}", token, metrics_port=0, drain=drain)


async def test_what_breaks_beside_the_executor_ends_the_worker(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(settings(drain=True))

    async def broken(_: BrokerQueue) -> int:
        while not broker.owners():
            await asyncio.sleep(0.01)
        raise ZeroDivisionError

    monkeypatch.setattr(BrokerQueue, "depth", broken)
    with pytest.raises(ExceptionGroup) as found:
        await worker.run()
    assert found.group_contains(ZeroDivisionError, depth=1)
    assert not broker.owners(), "it has released what it owned"


@pytest.mark.usefixtures("broker")
async def test_it_is_not_ready_at_any_moment_of_an_outage(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Probes are answered by another thread, which may look at any time."""
    seen: list[str | None] = []

    class Watched(Health):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if name == "waiting_for":
                seen.append(self.waiting_for)

    monkeypatch.setattr(module, "Health", Watched)
    worker = Worker(settings())
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(180):
        while not any(seen):
            await asyncio.sleep(0.05)
        del seen[:]
        while len(seen) < 2:
            await asyncio.sleep(0.05)
    worker.stop()
    await running
    assert None not in seen
    assert "; check scheme, host and port in --api-url (PREFACTOR_API_URL), and" in caplog.text
