"""How a worker ends, with everything of its own but the broker, which is the tests'."""

import pytest

from prefactor_core.broker.queue import BrokerQueue
from prefactor_worker import broker as module
from prefactor_worker.run.settings import RunSettings
from prefactor_worker.run.worker import Worker
from prefactor_worker.token import FixedToken
from tests.engine.setups import queue_on
from tests.support.fake_broker import FakeBroker
from tests.support.ports import free_port


async def test_what_breaks_beside_the_executor_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = FakeBroker(2)
    monkeypatch.setattr(module, "create_queue", lambda *_: queue_on(broker))
    token = FixedToken("a", "the test")
    settings = RunSettings("test://", f"http://127.0.0.1:{free_port()}", token, metrics_port=0, drain=True)
    worker = Worker(settings)

    async def broken(_: BrokerQueue) -> int:
        assert broker.owners()
        raise ZeroDivisionError

    monkeypatch.setattr(BrokerQueue, "depth", broken)
    with pytest.raises(ExceptionGroup) as found:
        await worker.run()
    assert found.group_contains(ZeroDivisionError, depth=1)
    assert not broker.owners(), "it has released what it owned"
