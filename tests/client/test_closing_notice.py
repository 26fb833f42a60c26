"""What somebody reads who waits for a client to close, or for a program that dropped one to exit."""

import asyncio

import pytest

from prefactor_core import (
    HttpClientConfig,
    InMemoryQueue,
    Operation,
    PrefactorCoreClient,
    PrefactorCoreConfig,
    Queue,
)
from prefactor_core.api import pipeline
from tests.client.load import new_instance, registry
from tests.engine.setups import queue_on
from tests.engine.virtual import virtual
from tests.support.fake_api import FakeApi
from tests.support.fake_broker import FakeBroker

_API = "http://me:secret@there:8700"


class _HttpApi(FakeApi):
    async def close(self) -> None:
        pass


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    """Return the API of every client: nothing can be reached there."""
    api = _HttpApi(unavailable=True)
    monkeypatch.setattr(pipeline, "HttpApi", lambda *_, **__: api)
    return api


async def used(queue: Queue[Operation] | None = None) -> PrefactorCoreClient:
    """Return a client that has put two operations."""
    http = HttpClientConfig(api_url=_API, api_token="test")
    client = PrefactorCoreClient(PrefactorCoreConfig(http_config=http, schema_registry=registry()), queue)
    await client.initialize()
    for _ in range(2):
        await new_instance(client)
    return client


def notices(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in caplog.messages if line.startswith("prefactor: closing waits")]


@pytest.mark.usefixtures("api")
@virtual
async def test_a_close_that_waits_says_so_once_after_a_second(caplog: pytest.LogCaptureFixture) -> None:
    closing = asyncio.create_task((await used()).close())
    await asyncio.sleep(0.99)
    assert notices(caplog) == []
    await asyncio.sleep(0.02)
    (notice,) = notices(caplog)
    assert notice.endswith(
        " waits for 2 operations to reach http://there:8700, for 29 s at most (close_timeout)"
    )
    assert (await closing).left == 2
    assert len(notices(caplog)) == 1
    assert "secret" not in caplog.text


@virtual
async def test_a_broker_is_named(caplog: pytest.LogCaptureFixture) -> None:
    broker = FakeBroker(2)
    broker.unavailable = True
    client = await used(queue_on(broker))
    assert (await client.close(5)).left == 2
    (notice,) = notices(caplog)
    assert f" 2 operations to reach {queue_on(broker).broker.name}, for 4 s at most" in notice


@pytest.mark.usefixtures("api")
@virtual
async def test_so_does_one_that_was_dropped(caplog: pytest.LogCaptureFixture) -> None:
    await used()
    await asyncio.sleep(40)
    assert len(notices(caplog)) == 1


@virtual
async def test_nothing_is_said_within_a_second_or_of_nothing(
    api: FakeApi, caplog: pytest.LogCaptureFixture
) -> None:
    await (await used()).close(1)
    api.unavailable = False
    api.latency = lambda: 0.4
    assert (await (await used()).close()).complete

    class Slow(InMemoryQueue[Operation]):
        local = False

        async def disconnect(self) -> None:
            await asyncio.sleep(5)

        async def flush(self, timeout: float) -> bool:
            await self.discard()
            return await super().flush(timeout)

    assert (await (await used(Slow())).close()).complete
    assert notices(caplog) == []
