"""The contract, part 2: settling and dead-lettering, each with its effect once, and the depth."""

import pytest

from prefactor_core.exceptions import QueueClosedError
from prefactor_core.queue.base import DeadLetter
from prefactor_core.testing.base import Contract
from prefactor_core.testing.operations import keys_of, note, notes
from prefactor_core.testing.receiving import eventually, handle, items, receive
from prefactor_core.testing.transport import Transport


class SettlingContract(Contract):
    """What is disposed of stays so, however often it is said."""

    async def test_depth_counts_what_is_unsettled(self, transport: Transport) -> None:
        """Given ten operations, when some are settled, then the depth is what is left of them."""
        async with transport.opened() as queue:
            assert await queue.depth() == 0
            for operation in notes("instance", 10):
                await queue.put(operation)
            await eventually(queue.depth, lambda depth: depth == 10, transport.patience)
            held = await receive(queue, 10, transport.patience)
            if transport.counts_handed_out:
                assert await queue.depth() == 10
            await queue.settle(held[:4])
            if transport.counts_handed_out:
                assert await queue.depth() == 6
            await queue.settle(held[4:])
            await eventually(queue.depth, lambda depth: depth == 0, transport.patience)

    async def test_settling_has_its_effect_once(self, transport: Transport) -> None:
        """Given settled deliveries, when they are settled again, then nothing more happens."""
        async with transport.opened() as queue:
            for operation in notes("instance", 4):
                await queue.put(operation)
            held = await receive(queue, 4, transport.patience)
            for _ in range(3):
                assert not await queue.settle(held[:2])
            if transport.counts_handed_out:
                assert await queue.depth() == 2
            await queue.release(held[2:])
            again = await handle(queue, 2, transport.patience)
            assert keys_of(again) == keys_of(items(held[2:]))
            await eventually(queue.depth, lambda depth: depth == 0, transport.patience)

    async def test_dead_lettering_has_its_effect_once(self, transport: Transport) -> None:
        """Given a dead letter, when it is dead-lettered again, or settled, then nothing more happens."""
        async with transport.opened() as queue:
            for operation in notes("instance", 3):
                await queue.put(operation)
            dead, *rest = await receive(queue, 3, transport.patience)
            letter = DeadLetter(dead.item, "no use", attempts=2, reply="no")
            for _ in range(2):
                assert not await queue.dead_letter([(dead, letter)])
            assert not await queue.settle([dead])
            if transport.counts_handed_out:
                assert await queue.depth() == 2
            assert not await queue.settle(rest)
            await eventually(queue.depth, lambda depth: depth == 0, transport.patience)

    async def test_what_was_handed_out_can_be_settled_after_close(self, transport: Transport) -> None:
        """Given deliveries in hand, when the queue is closed, then they can be disposed of all the same."""
        async with transport.opened() as queue:
            for operation in notes("instance", 3):
                await queue.put(operation)
            held = await receive(queue, 3, transport.patience)
            await queue.close()
            assert not await queue.settle(held[:1])
            assert not await queue.dead_letter([(held[1], DeadLetter(held[1].item, "no use"))])
            assert not await queue.settle(held[2:])
            await eventually(queue.depth, lambda depth: depth == 0, transport.patience)

    async def test_getting_settles(self, transport: Transport) -> None:
        """Given the published interface alone, when items are got, then they are gone, in order."""
        async with transport.opened() as queue:
            for operation in notes("instance", 3):
                await queue.put(operation)
            got = [await queue.get() for _ in range(3)]
            assert keys_of(got) == keys_of(notes("instance", 3))
            await eventually(queue.depth, lambda depth: depth == 0, transport.patience)
            await queue.close()
            with pytest.raises(QueueClosedError):
                await queue.get()

    async def test_settling_across_instances(self, transport: Transport) -> None:
        """Given deliveries of many instances, when settled in one call, then all of them are."""
        async with transport.opened() as queue:
            for number in range(40):
                await queue.put(note(f"instance{number}", 1))
            held = await receive(queue, 40, transport.patience)
            assert not await queue.settle(held)
            await eventually(queue.depth, lambda depth: depth == 0, transport.patience)
