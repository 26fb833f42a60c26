"""The contract, part 4: closing and flushing."""

import asyncio

import pytest

from prefactor_core.exceptions import QueueClosedError
from prefactor_core.testing.base import Contract
from prefactor_core.testing.operations import note, notes
from prefactor_core.testing.receiving import PLENTY, handle
from prefactor_core.testing.transport import Transport


class ClosingContract(Contract):
    """Closing wakes everybody and refuses what comes later; flushing tells the truth."""

    async def test_a_closed_queue_takes_nothing(self, transport: Transport) -> None:
        """Given a closed queue, when something is put, then that is refused; closing again is harmless."""
        async with transport.opened() as queue:
            open_at_first = not queue.closed
            await queue.put(note("instance", 1))
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

    async def test_flushing_nothing(self, transport: Transport) -> None:
        """Given an empty queue, when it is flushed, then that is true at once."""
        async with transport.opened() as queue:
            assert await queue.flush(0.5)

    async def test_flushing_in_vain(self, transport: Transport) -> None:
        """Given something that goes nowhere, when it is flushed, then that is false, in time."""
        async with transport.opened(transport.stuck_url) as queue:
            await queue.put(note("instance", 1))
            async with asyncio.timeout(5.0):
                assert not await queue.flush(0.2)
            assert queue.size() == 1

    async def test_flushing(self, transport: Transport) -> None:
        """Given something put, when it is flushed while others receive, then that comes true."""
        async with transport.opened() as queue:
            for operation in notes("instance", 50):
                await queue.put(operation)
            flushing = asyncio.create_task(queue.flush(transport.patience))
            await handle(queue, 50, transport.patience)
            assert await flushing
