"""What plausible but unusual agents do."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from prefactor_core import (
    AgentInstanceHandle,
    ClientClosedError,
    InvalidInputError,
    PrefactorTelemetryFailureError,
    SpanContext,
    SpanContextStack,
    WrongEventLoopError,
)
from prefactor_core.config import HttpClientConfig
from tests.integration.load import client_for
from tests.integration.test_surface import polling_client, terminate, until
from tests.support.emulator import running_emulator
from tests.support.ports import free_port
from tests.support.recording import Comparison, RecordingQueue, compare

VERSION = {"name": "hard", "external_identifier": "1"}
NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001 -- the point


# -- closing


async def test_a_cancelled_close_says_what_it_left_and_leaves_nothing_running(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = client_for(f"http://127.0.0.1:{free_port()}")
    await client.initialize()
    await client.create_agent_instance(agent_version=VERSION)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.close(timeout=60)
    assert "closed with 0 of 1 operations delivered" in caplog.text
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_closing_twice_and_at_once_has_one_outcome(tmp_path: Path) -> None:
    async with running_emulator(tmp_path, "--fault", "latency:ms=100") as emulator:
        client = client_for(emulator.url)
        await client.initialize()
        async with client.create_agent_instance(agent_version=VERSION):
            pass
        first, second = await asyncio.gather(client.close(), client.close())
        assert first == second == await client.close()
        assert first.delivered == first.put == 3


async def test_one_of_two_closers_can_be_cancelled(tmp_path: Path) -> None:
    async with running_emulator(tmp_path, "--fault", "latency:ms=200") as emulator:
        client = client_for(emulator.url)
        await client.initialize()
        await client.create_agent_instance(agent_version=VERSION)
        impatient = asyncio.create_task(client.close())
        patient = asyncio.create_task(client.close())
        await asyncio.sleep(0)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        assert (await patient).complete


async def test_a_queue_that_fails_to_close_fails_the_close() -> None:
    class Broken(RecordingQueue):
        async def close(self, num_waiters: int = 1) -> None:
            await super().close(num_waiters)
            raise OSError("broken")

    client = client_for(f"http://127.0.0.1:{free_port()}", Broken())
    await client.initialize()
    for _ in range(2):
        with pytest.raises(OSError, match="broken"):
            await client.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}, "it has let go of everything all the same"


# -- steps of a span


async def test_a_refused_time_leaves_the_span_as_it_was() -> None:
    queue = RecordingQueue()
    client = client_for(f"http://127.0.0.1:{free_port()}", queue)
    await client.initialize()
    instance = await client.create_agent_instance(agent_version=VERSION)
    for step in ("complete", "fail", "cancel"):
        async with instance.span("t:outer") as span:
            with pytest.raises(InvalidInputError, match="timestamp"):
                await getattr(span, step)(timestamp=NAIVE)
        assert queue.puts[-1].span_id == span.id
        assert queue.puts[-1].payload["status"] == "complete"
        assert SpanContextStack.is_empty()
    await client.close(timeout=0)


async def test_every_step_is_refused_once_the_client_is_closed() -> None:
    client = client_for(f"http://127.0.0.1:{free_port()}")
    await client.initialize()
    instance = await client.create_agent_instance(agent_version=VERSION)
    scope = instance.span("t:outer")
    span = await scope.__aenter__()
    await client.close(timeout=0)
    for step in (span.start, span.complete, span.fail, span.cancel, span.finish):
        with pytest.raises(ClientClosedError):
            await step()
    SpanContextStack.remove(span.id)


async def test_every_step_raises_a_failure_that_is_final(tmp_path: Path) -> None:
    async with running_emulator(tmp_path, "--token", "another") as emulator:
        client = client_for(emulator.url)
        await client.initialize()
        instance = await client.create_agent_instance(agent_version=VERSION)
        scope = instance.span("t:outer")
        span = await scope.__aenter__()
        with pytest.raises(PrefactorTelemetryFailureError):
            await client.flush(10)
        for step in (span.start, span.complete, span.fail, span.cancel, span.finish):
            with pytest.raises(PrefactorTelemetryFailureError):
                await step()
        with pytest.raises(PrefactorTelemetryFailureError):
            await client.close()
    SpanContextStack.remove(span.id)


async def test_a_step_from_another_loop_is_refused() -> None:
    client = client_for(f"http://127.0.0.1:{free_port()}")
    await client.initialize()
    instance = await client.create_agent_instance(agent_version=VERSION)
    refused: list[str] = []

    def other_thread(span: SpanContext) -> None:
        for step in (span.start, span.complete, span.cancel):
            try:
                asyncio.run(step())
            except WrongEventLoopError as error:
                refused.append(str(error))

    async with instance.span("t:outer") as span:
        thread = threading.Thread(target=other_thread, args=(span,))
        thread.start()
        await asyncio.to_thread(thread.join)
    assert len(refused) == 3
    await client.close(timeout=0)


async def test_a_payload_is_what_it_was_at_the_call() -> None:
    queue = RecordingQueue()
    client = client_for(f"http://127.0.0.1:{free_port()}", queue)
    await client.initialize()
    instance = await client.create_agent_instance(agent_version=VERSION)
    messages: list[Any] = ["question"]
    payload: Any = {"messages": messages, "numbers": iter([1, 2])}
    result = {"kept": ["answer"]}
    async with instance.span("t:outer", payload=payload) as span:
        messages.append(object())
        span.set_result(result)
        result["kept"].append("later")
    create, finish = queue.puts[-2:]
    assert create.payload["payload"] == {"messages": ["question"], "numbers": [1, 2]}
    assert finish.payload["result_payload"] == {"kept": ["answer"]}
    await client.close(timeout=0)


async def test_leaving_a_stream_early_cancels_its_span() -> None:
    queue = RecordingQueue()
    client = client_for(f"http://127.0.0.1:{free_port()}", queue)
    await client.initialize()
    instance = await client.create_agent_instance(agent_version=VERSION)

    async def stream() -> AsyncIterator[int]:
        async with instance.span("t:outer"):
            for token in range(10):
                yield token

    tokens = stream()
    assert await anext(tokens) == 0
    await tokens.aclose()  # type: ignore[attr-defined] # a generator, whatever its annotation
    assert queue.puts[-1].payload["status"] == "cancelled"
    await client.close(timeout=0)


async def test_deep_stacks_of_two_clients_do_not_lose_each_others_parents() -> None:
    clients = [client_for(f"http://127.0.0.1:{free_port()}", RecordingQueue()) for _ in range(2)]
    handles = []
    for client in clients:
        await client.initialize()
        handles.append(await client.create_agent_instance(agent_version=VERSION))
    root = await handles[0].create_span("t:outer")
    for _ in range(100):
        await handles[1].create_span("t:inner")
    async with handles[0].span("t:inner") as child:
        await child.start()
        queue = clients[0]._queue
        assert isinstance(queue, RecordingQueue)
        assert queue.puts[-1].payload["parent_span_id"] == root
    for client in clients:
        await client.close(timeout=0)


async def test_a_misused_span_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    client = client_for(f"http://127.0.0.1:{free_port()}")
    await client.initialize()
    instance = await client.create_agent_instance(agent_version=VERSION)
    for _ in range(50):
        async with instance.span("t:outer") as span:
            await span.start()
            span.set_payload({"late": 1})
    assert caplog.text.count("set_payload() after the start") == 1
    await client.close(timeout=0)


# -- instances


async def test_an_instance_finished_through_two_handles_is_finished_once(tmp_path: Path) -> None:
    async with running_emulator(tmp_path) as emulator:
        queue = RecordingQueue()
        client = client_for(emulator.url, queue)
        await client.initialize()
        first = await client.create_agent_instance(agent_version=VERSION)
        second = AgentInstanceHandle(first.id, client)
        await asyncio.gather(first.finish(), second.finish("failed"), first.finish())
        assert (await client.close()).complete
        assert compare(queue.puts, await emulator.effects()) == Comparison(0, 0, 0)
        assert (await emulator.instance(first.id))["status"] == "complete"


async def test_a_handle_made_by_hand_hears_of_the_termination(tmp_path: Path) -> None:
    async with running_emulator(tmp_path) as emulator:
        owner, other = polling_client(emulator.url, 0), polling_client(emulator.url, 0)
        await owner.initialize()
        await other.initialize()
        instance = await owner.create_agent_instance(agent_version=VERSION)
        await instance.start()
        assert await owner.flush(10)
        handle = AgentInstanceHandle(instance.id, other)
        assert not handle.terminated
        await terminate(emulator, instance.id, "enough")
        async with handle.span("t:outer"):
            pass
        await until(lambda: handle.terminated)
        await owner.close()
        await other.close()


async def test_an_instance_that_another_process_finished_is_not_polled_for_ever(tmp_path: Path) -> None:
    async with running_emulator(tmp_path) as emulator:
        client, other = polling_client(emulator.url, 0.1), polling_client(emulator.url, 0)
        await client.initialize()
        await other.initialize()
        instance = await client.create_agent_instance(agent_version=VERSION)
        await instance.start()
        assert await client.flush(10)
        assert client.termination_monitor.running() == [instance.id]
        await AgentInstanceHandle(instance.id, other).finish()
        await other.close()
        await until(lambda: client.termination_monitor.running() == [])
        await client.close()


# -- flushing under load


async def test_a_flush_does_not_wait_for_what_comes_later(tmp_path: Path) -> None:
    async with running_emulator(tmp_path, "--fault", "latency:ms=50") as emulator:
        client = client_for(emulator.url)
        await client.initialize()
        instance = await client.create_agent_instance(agent_version=VERSION)
        going_on = True

        async def agent() -> None:
            while going_on:
                async with instance.span("t:outer"):
                    await asyncio.sleep(0.001)

        agents = [asyncio.create_task(agent()) for _ in range(10)]
        for _ in range(3):
            put = client.stats().put
            assert await client.flush(10)
            assert client.stats().delivered >= put
            assert client.stats().put > client.stats().delivered
        going_on = False
        await asyncio.gather(*agents)
        assert (await client.close()).complete


# -- configuration


def test_a_bad_url_is_refused_without_its_password() -> None:
    for url in ("http://127.0.0.1:99999", "ftp://user:secret@host", "https://user:secret@", "nonsense"):
        with pytest.raises(ValueError, match="api_url") as caught:
            HttpClientConfig(api_url=url, api_token="t")
        assert "secret" not in str(caught.value)


def test_a_header_entry_has_to_fit_a_header() -> None:
    client = client_for("http://127.0.0.1:9")
    for entry in ("\u0438@1", "two\nlines"):
        with pytest.raises(InvalidInputError, match="sdk_header_entry"):
            client._set_sdk_header_entry(entry)


async def test_no_payload_is_in_a_repr() -> None:
    client = client_for(f"http://127.0.0.1:{free_port()}")
    await client.initialize()
    instance = await client.create_agent_instance(agent_version=VERSION)
    async with instance.span("t:outer", payload={"card": "4111"}) as span:
        session = client._session
        assert session is not None
        assert "4111" not in repr(session.spans.get_span(span.id))
    await client.close(timeout=0)


@pytest.fixture(autouse=True)
def quiet_httpx(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("httpx").setLevel(logging.WARNING)
    caplog.set_level(logging.INFO, logger="prefactor_core")
