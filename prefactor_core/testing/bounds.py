"""The contract, part 3: the bounded buffer, and an agent that never waits for a broker."""

import asyncio

import pytest

from prefactor_core.exceptions import BrokerError, QueueClosedError
from prefactor_core.testing.base import Contract
from prefactor_core.testing.operations import (
    create,
    finish,
    finish_span,
    key_of,
    life,
    note,
    notes,
    register,
    start,
)
from prefactor_core.testing.receiving import handle, returns_at_once
from prefactor_core.testing.transport import Transport

_ENDS_WITHIN = 10.0


class BufferContract(Contract):
    """What does not fit is dropped in whole chains of dependents, or waits, as the policy says."""

    async def test_putting_never_suspends(self, transport: Transport) -> None:
        """Given a queue that goes nowhere, when more is put than fits, then no put waits for anything."""
        async with transport.opened(transport.stuck_url, buffer_operations=50) as queue:
            assert queue.immediate
            for operation in notes("instance", 200):
                assert returns_at_once(queue.put(operation))
            assert sum(queue.dropped.values()) == 150
            assert queue.size() == 50

    async def test_drops_close_over_causality(self, transport: Transport) -> None:
        """Given a full buffer, when lives are put, then none is cut in half and every drop is counted."""
        async with transport.opened(transport.stuck_url, buffer_operations=5) as queue:
            kept = [register("a"), start("a"), create("a", "a1")]
            lost = [*life("b", spans=1), create("a", "a2", parent="a1"), create("a", "a3", parent="a2")]
            lost += [finish_span("a", "a3"), finish_span("a", "a2")]
            closing = [finish_span("a", "a1"), finish("a")]
            for operation in [*kept, *lost, *closing]:
                await queue.put(operation)
            assert queue.size() == 5
            assert dict(queue.dropped) == {
                "register_agent_instance": 1,
                "start_agent_instance": 1,
                "create_span": 3,
                "finish_span": 3,
                "finish_agent_instance": 1,
            }

    async def test_the_buffer_is_bounded_by_bytes(self, transport: Transport) -> None:
        """Given room for few bytes, when large operations are put, then what does not fit is dropped."""
        async with transport.opened(transport.stuck_url, buffer_bytes=100_000) as queue:
            for number in range(50):
                await queue.put(create("instance", f"span{number}", text="x" * 10_000))
            assert 1 <= queue.size() <= 10
            assert queue.size() + sum(queue.dropped.values()) == 50

    async def test_a_blocking_put_waits_for_room(self, transport: Transport) -> None:
        """Given room for four, when sixty are put while they are received, then all come, in order."""
        put = notes("instance", 60)
        async with transport.opened(buffer_operations=4, buffer_policy="block") as queue:
            assert not queue.immediate

            async def agent() -> None:
                for operation in put:
                    await queue.put(operation)

            async with asyncio.TaskGroup() as together:
                together.create_task(agent())
                got = await handle(queue, 60, transport.patience)
            assert [key_of(one) for one in got] == [key_of(one) for one in put]
            assert sum(queue.dropped.values()) == 0

    async def test_closing_ends_a_blocking_put(self, transport: Transport) -> None:
        """Given a put that waits for room, when the queue is closed, then the put is refused."""
        async with transport.opened(transport.stuck_url, buffer_operations=1, buffer_policy="block") as queue:
            assert returns_at_once(queue.put(note("instance", 1)))
            waiting = asyncio.create_task(queue.put(note("instance", 2)))
            await asyncio.sleep(0)
            assert not waiting.done()
            await queue.close()
            async with asyncio.timeout(_ENDS_WITHIN):
                with pytest.raises(QueueClosedError):
                    await waiting
            assert queue.size() == 1


class PublishingContract(Contract):
    """An agent does not feel whether the broker is there."""

    async def test_the_account_while_the_broker_is_unavailable(self, transport: Transport) -> None:
        """Given an unreachable broker, when more is put than fits, then the account adds up each time."""
        async with transport.shared(transport.unreachable_url, buffer_operations=30) as queue:
            for number in range(1, 61):
                assert returns_at_once(queue.put(note("instance", number)))
                at = queue.published
                assert at.put == number
                assert at.put == at.confirmed + at.unconfirmed + at.buffered + sum(at.dropped.values())
            assert not await queue.flush(0.3)
            at = queue.published
            assert (at.confirmed, at.unconfirmed + at.buffered, sum(at.dropped.values())) == (0, 30, 30)

    async def test_the_end_while_the_broker_is_unavailable(self, transport: Transport) -> None:
        """Given an unreachable broker, when the agent ends, then soon, and what is left stays counted."""
        async with transport.shared(transport.unreachable_url) as queue:
            for operation in notes("instance", 10):
                await queue.put(operation)
            await queue.flush(0.2)
            async with asyncio.timeout(_ENDS_WITHIN):
                await queue.close()
                await queue.disconnect()
            left = queue.published
            assert (left.put, left.confirmed, left.unconfirmed + left.buffered) == (10, 0, 10)

    async def test_a_consumer_without_its_broker(self, transport: Transport) -> None:
        """Given an unreachable broker, when a consumer waits there, then it can be closed all the same."""
        async with transport.shared(transport.unreachable_url) as queue:
            receiver = asyncio.create_task(queue.receive(1, 1))
            with pytest.raises(BrokerError):
                await queue.depth()
            async with asyncio.timeout(_ENDS_WITHIN):
                await queue.close()
                with pytest.raises(QueueClosedError):
                    await receiver
                await queue.disconnect()

    async def test_checking_an_unreachable_broker(self, transport: Transport) -> None:
        """Given a URL where nobody answers, when it is checked, then the error says so, without secrets."""
        async with transport.shared(transport.unreachable_url) as queue:
            with pytest.raises(BrokerError):
                await queue.broker.check()

    async def test_checking(self, transport: Transport) -> None:
        """Given a broker, when it is checked, then what is wrong with it is said in words."""
        async with transport.shared() as queue:
            assert all(isinstance(one, str) and one for one in await queue.broker.check())

    async def test_the_account_of_what_arrived(self, transport: Transport) -> None:
        """Given operations put, when all are flushed, then all are confirmed and none is anywhere else."""
        async with transport.shared() as queue:
            for operation in notes("instance", 500):
                await queue.put(operation)
            assert await queue.flush(transport.patience)
            at = queue.published
            assert (at.put, at.confirmed, at.unconfirmed, at.buffered, at.dropped) == (500, 500, 0, 0, {})

    async def test_the_number_of_partitions_is_what_is_recorded(self, transport: Transport) -> None:
        """Given a recorded number of partitions, when somebody wants another, then the record holds."""
        async with transport.shared(transport.at(partitions=3)) as first:
            end = first.broker.publishing()
            assert await end.partitions() == 3
            await end.disconnect()
        async with transport.shared(transport.at(partitions=7)) as second:
            publishing, consuming = second.broker.publishing(), second.broker.consuming()
            assert await publishing.partitions() == 3
            assert await consuming.partitions() == 3
            assert [state.number for state in await consuming.states()] == [0, 1, 2]
            await publishing.disconnect()
            await consuming.disconnect()
