"""What an agent feels of its queue: bounded, never in its way, honest about what became of its puts."""

import asyncio

import pytest

from prefactor_core.testing.operations import create, finish_span, keys_of, life, note, notes
from prefactor_core.testing.receiving import PLENTY, handle, returns_at_once
from prefactor_core.testing.transport import Contract, Transport
from prefactor_core.transport import BrokerError, QueueClosedError

_ENDS_WITHIN = 10.0


class BufferContract(Contract):
    """What does not fit is dropped with its dependents, or waits; closing wakes everybody."""

    async def test_putting_never_suspends(self, transport: Transport) -> None:
        """Given a queue that goes nowhere, when more is put than fits, then no put waits for anything."""
        async with transport.opened(url=transport.stuck_url, buffer_operations=50) as queue:
            for operation in notes("instance", 200):
                assert returns_at_once(queue.put(operation))
            assert sum(queue.dropped.values()) == 150
            assert queue.size() == 50

    async def test_drops_close_over_causality(self, transport: Transport) -> None:
        """Given a full buffer, when lives are put, then none is cut in half and every drop is counted."""
        opening, closing = life("a")[:3], life("a")[3:]
        lost = [*life("b"), create("a", "a2", parent="a-span0"), create("a", "a3", parent="a2")]
        lost += [finish_span("a", "a3"), finish_span("a", "a2")]
        put = [*opening, *lost, *closing]
        async with transport.opened(*put, url=transport.stuck_url, buffer_operations=5) as queue:
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
        put = [create("instance", f"span{number}", text="x" * 10_000) for number in range(50)]
        async with transport.opened(*put, url=transport.stuck_url, buffer_bytes=100_000) as queue:
            assert 1 <= queue.size() <= 10
            assert queue.size() + sum(queue.dropped.values()) == 50

    async def test_a_blocking_put_waits_for_room(self, transport: Transport) -> None:
        """Given room for four, when sixty are put while they are received, then all come, in order."""
        put = notes("instance", 60)
        async with transport.opened(buffer_operations=4, buffer_policy="block") as queue:

            async def agent() -> None:
                for operation in put:
                    await queue.put(operation)

            async with asyncio.TaskGroup() as together:
                together.create_task(agent())
                got = await handle(queue, 60, transport.patience)
            assert keys_of(got) == keys_of(put)
            assert sum(queue.dropped.values()) == 0

    async def test_closing_ends_a_blocking_put(self, transport: Transport) -> None:
        """Given a put that waits for room, when the queue is closed, then the put is refused."""
        bounds = {"buffer_operations": 1, "buffer_policy": "block"}
        async with transport.opened(url=transport.stuck_url, **bounds) as queue:
            assert returns_at_once(queue.put(note("instance", 1)))
            waiting = asyncio.create_task(queue.put(note("instance", 2)))
            await asyncio.sleep(0)
            assert not waiting.done()
            await queue.close()
            async with asyncio.timeout(_ENDS_WITHIN):
                with pytest.raises(QueueClosedError):
                    await waiting
            assert queue.size() == 1

    async def test_a_closed_queue_takes_nothing(self, transport: Transport) -> None:
        """Given a closed queue, when something is put, then that is refused; closing again is harmless."""
        async with transport.opened(note("instance", 1)) as queue:
            open_at_first = not queue.closed
            for _ in range(3):
                await queue.close()
            assert (open_at_first, queue.closed) == (True, True)
            with pytest.raises(QueueClosedError):
                await queue.put(note("instance", 2))
            published = queue.published
            assert published is None or published.put == 1, "what was refused was not put"

    async def test_closing_wakes_every_receiver(self, transport: Transport) -> None:
        """Given receivers that wait, when the queue is closed by a caller who counts none, then all end."""
        async with transport.opened() as queue:
            receivers = [asyncio.create_task(queue.receive(1, PLENTY)) for _ in range(5)]
            await asyncio.sleep(0)  # so that they wait
            await queue.close(0)
            async with asyncio.timeout(transport.patience):
                ends = await asyncio.gather(*receivers, return_exceptions=True)
            assert [type(end) for end in ends] == [QueueClosedError] * 5
            with pytest.raises(QueueClosedError):
                await queue.receive(1, PLENTY)

    async def test_closing_a_queue_that_was_never_used(self, transport: Transport) -> None:
        """Given a queue that nobody has used, when it ends twice, then that is harmless."""
        async with transport.opened() as queue:
            await queue.close()
            await queue.disconnect()
            await queue.disconnect()
            assert queue.closed

    async def test_flushing_in_vain(self, transport: Transport) -> None:
        """Given something that goes nowhere, when it is flushed, then that is false, in time."""
        async with transport.opened(note("instance", 1), url=transport.stuck_url) as queue:
            async with asyncio.timeout(5.0):
                assert not await queue.flush(0.2)
            assert queue.size() == 1

    async def test_flushing(self, transport: Transport) -> None:
        """Given nothing, or something that is received meanwhile, when it is flushed, then that is true."""
        async with transport.opened() as queue:
            assert await queue.flush(0.5), "there is nothing to wait for"
            for operation in notes("instance", 50):
                await queue.put(operation)
            flushing = asyncio.create_task(queue.flush(transport.patience))
            await handle(queue, 50, transport.patience)
            assert await flushing


class PublishingContract(Contract):
    """An agent does not feel whether the broker is there."""

    async def test_the_account_while_the_broker_is_unavailable(self, transport: Transport) -> None:
        """Given an unreachable broker, when more is put than fits, then the account adds up each time."""
        async with transport.shared(url=transport.unreachable_url, buffer_operations=30) as queue:
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
        async with transport.shared(*notes("instance", 10), url=transport.unreachable_url) as queue:
            await queue.flush(0.2)
            async with asyncio.timeout(_ENDS_WITHIN):
                await queue.close()
                await queue.disconnect()
            left = queue.published
            assert (left.put, left.confirmed, left.unconfirmed + left.buffered) == (10, 0, 10)

    async def test_a_consumer_without_its_broker(self, transport: Transport) -> None:
        """Given an unreachable broker, when a consumer waits there, then it can be closed all the same."""
        async with transport.shared(url=transport.unreachable_url) as queue:
            receiver = asyncio.create_task(queue.receive(1, 1))
            with pytest.raises(BrokerError):
                await queue.depth()
            async with asyncio.timeout(_ENDS_WITHIN):
                await queue.close()
                with pytest.raises(QueueClosedError):
                    await receiver
                await queue.disconnect()

    async def test_checking(self, transport: Transport) -> None:
        """Given a broker, when it is checked, then what is wrong is said in words; so it is where none is."""
        async with transport.shared() as queue:
            assert all(isinstance(one, str) and one for one in await queue.broker.check())
        async with transport.shared(url=transport.unreachable_url) as queue:
            with pytest.raises(BrokerError):
                await queue.broker.check()

    async def test_the_account_of_what_arrived(self, transport: Transport) -> None:
        """Given operations put, when all are flushed, then all are confirmed and none is anywhere else."""
        async with transport.shared(*notes("instance", 500)) as queue:
            assert await queue.flush(transport.patience)
            at = queue.published
            assert (at.put, at.confirmed, at.unconfirmed, at.buffered, at.dropped) == (500, 500, 0, 0, {})

    async def test_the_number_of_partitions_is_what_is_recorded(self, transport: Transport) -> None:
        """Given a recorded number of partitions, when somebody wants another, then the record holds."""
        async with transport.having(partitions=3).shared() as queue, queue.broker.publishing() as end:
            assert await end.partitions() == 3
        async with (
            transport.having(partitions=7).shared() as queue,
            queue.broker.publishing() as publishing,
            queue.broker.consuming() as consuming,
        ):
            assert await publishing.partitions() == 3
            assert await consuming.partitions() == 3
            assert [state.number for state in await consuming.states()] == [0, 1, 2]
