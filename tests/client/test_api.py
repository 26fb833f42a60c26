"""A client and a real API: refused tokens, rejections, repeated ends, closing, and queues of one's own."""

import asyncio
import gc
import os
from pathlib import Path

import pytest

from prefactor_core import (
    AgentInstanceHandle,
    ClientClosedError,
    InMemoryQueue,
    OperationError,
    PrefactorTelemetryFailureError,
    SpanContextStack,
)
from prefactor_core.operations import Operation
from tests.client.load import VERSION, client_for, close_and_compare, delivering, new_instance
from tests.engine.test_executor import FiveMethods
from tests.support.emulator import running_emulator
from tests.support.recording import Comparison, RecordingQueue, compare

TOKEN = ("--token", "another")
"""An emulator that refuses the clients' token."""


# -- closing


async def test_a_closed_client_can_be_initialised_again(tmp_path: Path) -> None:
    async with running_emulator(tmp_path) as emulator:
        client = client_for(emulator.url)
        for _ in range(2):
            async with client, client.create_agent_instance(agent_version=VERSION) as instance:
                await instance.start()
        assert len(await emulator.effects()) == 6


async def test_closing_twice_and_at_once_has_one_outcome(tmp_path: Path) -> None:
    async with delivering(tmp_path, "--fault", "latency:ms=100") as (_, client, _):
        async with client.create_agent_instance(agent_version=VERSION):
            pass
        impatient = asyncio.create_task(client.close())
        closing = asyncio.gather(client.close(), client.close())
        await asyncio.sleep(0)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        first, second = await closing
        assert first == second == await client.close()
        assert first.complete
        assert first.delivered == first.put == 3


async def test_a_forked_child_is_refused_begins_anew_and_its_parent_goes_on(tmp_path: Path) -> None:
    async with delivering(tmp_path) as (emulator, client, queue):
        instance = await new_instance(client)

        async def call() -> str:
            return await instance.create_span("t:outer")

        async def in_child() -> int:
            with pytest.raises(ClientClosedError, match="forked"):
                await call()
            client._queue = InMemoryQueue()  # the other one is the parent's
            await client.initialize()
            await instance.finish_span(await call())
            return (await client.close()).delivered

        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = 0 if asyncio.run(in_child()) == 2 else 2
            finally:
                os._exit(status)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        await instance.finish_span(await call())
        await instance.finish()
        summary = await client.close()
        assert (summary.put, summary.complete) == (len(queue.puts), True)
        assert len(await emulator.effects()) == summary.put + 2


async def test_a_flush_does_not_wait_for_what_comes_later(tmp_path: Path) -> None:
    async with delivering(tmp_path, "--fault", "latency:ms=50") as (_, client, _):
        instance = await new_instance(client)
        going_on = True

        async def agent() -> None:
            while going_on:
                async with instance.span("t:outer"):
                    await asyncio.sleep(0.02)

        agents = [asyncio.create_task(agent()) for _ in range(10)]
        for _ in range(3):
            put = client.stats().put
            assert await client.flush(120)
            assert client.stats().delivered >= put
            assert client.stats().put > client.stats().delivered
        going_on = False
        await asyncio.gather(*agents)
        assert (await client.close()).complete


# -- a refused token


async def test_a_refused_token_is_raised_by_whatever_follows(tmp_path: Path) -> None:
    async with delivering(tmp_path, *TOKEN) as (emulator, client, queue):
        instance = await new_instance(client)
        await instance.start()
        span = await instance.span("t:outer").__aenter__()
        with pytest.raises(PrefactorTelemetryFailureError, match="refuses the token") as caught:
            async with asyncio.timeout(180):
                while True:
                    await instance.finish_span(await instance.create_span("t:outer"))
                    await asyncio.sleep(0.01)
        puts = len(queue.puts)
        assert caught.value.dropped_operations == puts + 1, "the call that was refused"
        assert isinstance(caught.value.cause, OperationError)
        assert (caught.value.cause.status_code, caught.value.cause.code) == (401, "unauthorized")
        assert caught.value.operation_type == "REGISTER_AGENT_INSTANCE"
        assert f"prefactor: the API at {emulator.url} refuses the token (HTTP 401 " in str(caught.value)
        with pytest.raises(PrefactorTelemetryFailureError):
            async with instance.span("t:outer"):
                pass
        for step in (span.start, span.complete, span.fail, span.cancel, span.finish, client.flush):
            with pytest.raises(PrefactorTelemetryFailureError):
                await step()
        del span, step  # which nobody counts as one more call
        gc.collect()
        for _ in range(5):
            await asyncio.sleep(0)
        with pytest.raises(PrefactorTelemetryFailureError) as at_close:
            await client.close()
        assert at_close.value.dropped_operations == puts + 7, "flush() would have put nothing"
        summary = await client.close()
        assert (summary.put, summary.dropped, summary.left) == (puts, {"discarded": puts}, 0)
        assert queue.unsettled == 0
        assert await emulator.effects() == []
    SpanContextStack.pop()


async def test_a_refused_token_is_raised_by_a_close_or_flush_that_comes_at_once(tmp_path: Path) -> None:
    async with running_emulator(tmp_path, *TOKEN) as emulator:
        for turn in range(10):
            queue = RecordingQueue()
            client = client_for(emulator.url, queue)
            await client.initialize()
            await new_instance(client)
            if turn == 0:
                with pytest.raises(PrefactorTelemetryFailureError):
                    await client.flush(10)
            with pytest.raises(PrefactorTelemetryFailureError) as caught:
                await client.close()
            assert caught.value.dropped_operations == 1
            assert caught.value.operation_type == "REGISTER_AGENT_INSTANCE"
            assert queue.unsettled == 0


async def test_a_failure_does_not_mask_the_agents_exception(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_emulator(tmp_path, *TOKEN) as emulator:
        client = client_for(emulator.url)
        with pytest.raises(ZeroDivisionError):
            async with (
                client,
                client.create_agent_instance(agent_version=VERSION) as instance,
                instance.span("t:outer"),
            ):
                async with asyncio.timeout(180):
                    while "refuses the token" not in caplog.text:
                        await asyncio.sleep(0.01)
                raise ZeroDivisionError
        assert "could not be ended" in caplog.text
        assert "could not be finished" in caplog.text


# -- instances that are rejected, or over


async def test_an_instance_whose_start_is_rejected_is_not_called_finished(tmp_path: Path) -> None:
    options = ("--fault", "reject:rate=1,status=422,type=agent_instances/start")
    async with delivering(tmp_path, *options) as (_, client, queue):
        async with (
            client.create_agent_instance(agent_version=VERSION) as instance,
            instance.span("t:outer"),
        ):
            pass
        summary = await client.close()
        assert (summary.delivered, summary.dead_lettered) == (1, 4)
        reasons = [dead.reason for dead in queue.dead_letters()]
        assert reasons[0] == "rejected: HTTP 422 rejected"
        assert reasons[1:] == ["follows a lost operation: rejected: HTTP 422 rejected"] * 3


async def test_an_instance_is_finished_once_and_not_before_it_has_begun(tmp_path: Path) -> None:
    async with delivering(tmp_path) as (emulator, client, queue):
        async with client_for(emulator.url) as other:
            pending = await new_instance(other)
        await AgentInstanceHandle(pending.id, client).finish()
        assert await client.flush(10)
        (dead,) = queue.dead_letters()
        assert dead.reason == "conflict: HTTP 409 invalid_action"
        assert (await emulator.instance(pending.id))["status"] == "pending"

        first = await new_instance(client)
        second = AgentInstanceHandle(first.id, client)
        await asyncio.gather(first.finish(), second.finish("failed"), first.finish())
        over = await new_instance(client)
        await over.finish()
        await client.instance_manager.finish_with_idempotency_key(over.id, "another-key", "failed")
        summary = await client.close()
        assert (summary.dead_lettered, summary.delivered) == (1, summary.put - 1)
        of_first = [put for put in queue.puts if put.instance_id == first.id]
        effects = [effect for effect in await emulator.effects() if effect["instance_id"] == first.id]
        assert compare(of_first, effects) == Comparison(0, 0, 0)
        for instance in (first, over):
            assert (await emulator.instance(instance.id))["status"] == "complete"


# -- queues of one's own, and an API that crashes


class Suspending(FiveMethods):
    """The published interface and no more, with puts that suspend; false while it is empty."""

    def __init__(self) -> None:
        super().__init__()
        self.puts: list[Operation] = []

    def __len__(self) -> int:
        return self.size()

    async def put(self, item: Operation) -> None:
        await asyncio.sleep(0)
        self.puts.append(item)
        await super().put(item)


async def test_a_queue_with_five_methods_carries_a_run(tmp_path: Path) -> None:
    async with running_emulator(tmp_path) as emulator:
        queue = Suspending()
        client = client_for(emulator.url, queue)
        await client.initialize()

        async def run() -> None:
            async with client.create_agent_instance(agent_version=VERSION) as instance:
                await instance.start()
                async with instance.span("t:outer"):
                    await asyncio.gather(*(one(instance) for _ in range(10)))

        async def one(instance: AgentInstanceHandle) -> None:
            async with instance.span("t:inner"):
                await instance.finish_span(await instance.create_span("t:by-hand"))

        await asyncio.gather(*(run() for _ in range(5)))
        summary = await client.close(timeout=30)
        assert summary.complete, summary
        assert summary.put == 5 * (3 + 2 * 21)
        assert compare(queue.puts, await emulator.effects()) == Comparison(0, 0, 0)


async def test_the_emulator_is_killed_without_notice_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    async with delivering(tmp_path) as (emulator, client, queue):
        for _ in range(5):
            async with client.create_agent_instance(agent_version=VERSION) as instance:
                await instance.start()
                for _ in range(20):
                    async with instance.span("t:outer"):
                        await asyncio.sleep(0.001)
                await emulator.kill()
                await emulator.start()
        await close_and_compare(emulator, client, queue)
