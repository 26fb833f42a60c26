"""Quality, termination, flush and stats, settings from the environment."""

import asyncio
import os
import threading
from pathlib import Path

import httpx
import pytest

from prefactor_core import (
    AgentInstanceHandle,
    InvalidInputError,
    PrefactorCoreClient,
    PrefactorCoreConfig,
    PrefactorTerminatedError,
    SchemaRegistry,
    warn_missing_adaptor_config,
)
from prefactor_core.identifiers import PfidFactory
from tests.client.load import client_for, close_and_compare, delivering, new_instance
from tests.support.emulator import Emulator, running_emulator
from tests.support.fleet import until


async def terminate(emulator: Emulator, instance_id: str, reason: str) -> None:
    async with httpx.AsyncClient(base_url=emulator.url, trust_env=False) as http:
        reply = await http.post(f"/emulator/instances/{instance_id}/terminate", json={"reason": reason})
        reply.raise_for_status()


def polling_client(url: str, interval: float) -> PrefactorCoreClient:
    return client_for(url, termination_poll_interval=interval)


# -- quality


async def test_qualities_are_recorded_repeated_and_removed(tmp_path: Path) -> None:
    schemas = SchemaRegistry()
    schemas.register("t:outer", {"type": "object"})
    schemas.register_quality_schema("accuracy", {"type": "object"}, title="Accuracy")
    async with delivering(tmp_path) as (emulator, client, queue):
        client._config.schema_registry = schemas
        instance = await new_instance(client)
        await instance.start()
        for score in (0.5, 0.9, 0.5):
            await instance.record_quality("accuracy", {"score": score})
        await client.record_quality(instance.id, "other", {"x": 1})
        assert await client.flush(10)
        found = (await emulator.instance(instance.id))["quality"]
        assert found == {"accuracy": {"score": 0.5}, "other": {"x": 1}}
        await instance.record_quality("other", None)
        await instance.finish()
        await close_and_compare(emulator, client, queue)
        assert (await emulator.instance(instance.id))["quality"] == {"accuracy": {"score": 0.5}}
        keys = [operation.idempotency_key or "" for operation in queue.puts]
        assert len(set(keys)) == len(keys)
        assert all(8 <= len(key) <= 64 for key in keys)


# -- termination


@pytest.mark.parametrize("options", [(), ("--fault", "no-bulk:status=404")])
async def test_the_next_reply_tells_the_agent_to_stop_and_the_others_go_on(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    async with running_emulator(tmp_path, *options) as emulator:
        client = polling_client(emulator.url, 0)
        await client.initialize()
        first = await new_instance(client)
        second = await new_instance(client)
        for instance in (first, second):
            await instance.start()
        assert await client.flush(10)
        await terminate(emulator, first.id, "enough")
        assert not first.terminated
        async with first.span("t:outer"), second.span("t:outer"):
            pass
        await until(lambda: first.terminated)
        with pytest.raises(PrefactorTerminatedError, match="enough") as caught:
            first.raise_if_terminated()
        assert caught.value.reason == "enough"
        assert await client.flush(10)
        second.raise_if_terminated()
        for instance in (first, second):
            await instance.finish("cancelled")
        summary = await client.close()
        assert summary.complete, summary  # the finish of a terminated instance has nothing left to do
        assert (await emulator.instance(first.id))["status"] == "terminated"
        assert (await emulator.instance(second.id))["status"] == "cancelled"
        assert not first.terminated, "the finish clears it"


async def test_without_a_reply_the_poll_tells_and_ends_with_the_instance(tmp_path: Path) -> None:
    async with (
        running_emulator(tmp_path) as emulator,
        polling_client(emulator.url, 0.1) as client,
        polling_client(emulator.url, 0) as other,
    ):
        first, second = await new_instance(client), await new_instance(client)
        await first.start()
        await second.start()
        assert await client.flush(10)
        await terminate(emulator, first.id, "while it thinks")
        await until(lambda: first.terminated)
        assert not second.terminated
        # An instance that another process finished is not polled for ever.
        assert second.id in client.termination_monitor.running()
        await AgentInstanceHandle(second.id, other).finish()
        await until(lambda: second.id not in client.termination_monitor.running())


async def test_a_handle_made_by_hand_hears_of_the_termination(tmp_path: Path) -> None:
    async with (
        running_emulator(tmp_path) as emulator,
        polling_client(emulator.url, 0) as owner,
        polling_client(emulator.url, 0) as other,
    ):
        instance = await new_instance(owner)
        await instance.start()
        assert await owner.flush(10)
        handle = AgentInstanceHandle(instance.id, other)
        assert not handle.terminated
        await terminate(emulator, instance.id, "enough")
        async with handle.span("t:outer"):
            pass
        await until(lambda: handle.terminated)


async def test_the_clients_monitor_speaks_for_the_current_instance_from_any_thread(tmp_path: Path) -> None:
    async with running_emulator(tmp_path) as emulator:
        client = polling_client(emulator.url, 0.2)
        get_event = client._termination_monitor.get_termination_event  # kept, as integrations do
        assert not get_event().is_set()
        await client.initialize()
        for name in ("one", "two"):
            instance = await new_instance(client)
            await instance.start()
            assert not get_event().is_set()
            assert await client.flush(10)
            await terminate(emulator, instance.id, name)
            seen: list[bool] = []
            waiting = threading.Thread(target=lambda seen=seen: seen.append(get_event().wait(10)))
            waiting.start()
            await asyncio.to_thread(waiting.join)
            assert seen == [True]
            assert client._termination_monitor.termination_reason == name
            await instance.finish()
        await client.close()
        assert not client._termination_monitor.get_termination_event(PfidFactory().new()).is_set()


# -- flush and stats


async def test_stats_always_add_up(tmp_path: Path) -> None:
    async with delivering(tmp_path, "--fault", "latency:ms=20") as (_, client, _):

        def check() -> None:
            stats = client.stats()
            gone = stats.delivered + stats.dead_lettered + sum(stats.dropped.values())
            assert stats.put == gone + stats.buffered + stats.sending

        instance = await new_instance(client)
        for _ in range(50):
            async with instance.span("t:outer"):
                check()
                await asyncio.sleep(0.001)
        assert client.stats().delivered < client.stats().put == 102
        assert await client.flush(10)
        check()
        assert client.stats().delivered == 102
        left_open = await instance.create_span("t:outer")
        assert client.stats().open_spans == 1
        await instance.finish_span(left_open)
        await client.close()


# -- the environment


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name in list(os.environ):
        if name.startswith("PREFACTOR_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def test_settings_come_from_the_environment_and_a_file(settings: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert PrefactorCoreConfig.from_env() == PrefactorCoreConfig(), "nothing is set yet"
    (tmp_path / ".env").write_text(
        "PREFACTOR_API_TOKEN=from-file\nPREFACTOR_NUM_WORKERS=7\nPREFACTOR_ELSE=1\nPREFACTOR_MAX_RETRIES=\n"
    )
    settings.setenv("PREFACTOR_API_TOKEN", "from-environment")
    settings.setenv("PREFACTOR_API_URL", "http://127.0.0.1:8700/")
    settings.setenv("PREFACTOR_REQUEST_TIMEOUT", "3.5")
    settings.setenv("PREFACTOR_BUFFER_OPERATIONS", "123")
    settings.setenv("PREFACTOR_MAX_RETRIES", "9")
    config = PrefactorCoreConfig.from_env()
    assert config.http_config is not None
    assert config.http_config.api_token == "from-environment"
    assert config.http_config.api_url == "http://127.0.0.1:8700"
    assert config.http_config.request_timeout == 3.5
    assert (config.queue_config.num_workers, config.queue_config.max_retries) == (7, 9)
    assert (config.buffer_operations, config.transport_url) == (123, "memory://")
    without_file = PrefactorCoreConfig.from_env(env_file=None)
    assert without_file.queue_config.num_workers == 3


def test_a_wrong_value_names_its_variable(settings: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("PREFACTOR_NUM_WORKERS", "many"),
        ("PREFACTOR_NUM_WORKERS", "99"),
        ("PREFACTOR_BUFFER_BYTES", "0"),
        ("PREFACTOR_REQUEST_TIMEOUT", "-1"),
        ("PREFACTOR_API_URL", "ftp://a-host"),
        ("PREFACTOR_API_TOKEN", "secret token\n"),
    ):
        with settings.context() as patch:
            patch.setenv("PREFACTOR_API_TOKEN", "a-token")
            patch.setenv(name, value)
            with pytest.raises(InvalidInputError) as caught:
                PrefactorCoreConfig.from_env()
        assert caught.value.field == name, value
        assert "secret token" not in str(caught.value)


def test_an_integration_that_the_client_was_not_made_for_is_told(caplog: pytest.LogCaptureFixture) -> None:
    warn_missing_adaptor_config("an-instance", "langchain", "create_langchain_client(...)")
    assert "an-instance" in caplog.text
    assert "not configured for langchain" in caplog.text
    assert "create_langchain_client(...)" in caplog.text
