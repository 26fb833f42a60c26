"""The contract, part 1: everything arrives, unchanged, once, in the order of its instance."""

import asyncio

import pytest

from prefactor_core.testing.base import Contract
from prefactor_core.testing.operations import (
    by_instance,
    create,
    interleaved,
    keys_of,
    life,
    note,
    notes,
)
from prefactor_core.testing.receiving import PLENTY, handle, items, receive
from prefactor_core.testing.transport import Transport

_BIG = "x" * 20_000


class OrderContract(Contract):
    """Order by instance, bounds on what is received, and giving back."""

    async def test_order_by_instance(self, transport: Transport) -> None:
        """Given many instances put in turn, when all is received, then each is there once and in order."""
        put = interleaved([life(f"instance{number}", spans=5) for number in range(20)])
        async with transport.opened() as queue:
            for operation in put:
                await queue.put(operation)
            got = await handle(queue, len(put), transport.patience)
        assert sorted(keys_of(got)) == sorted(keys_of(put))
        assert by_instance(got) == by_instance(put)

    async def test_operations_arrive_unchanged(self, transport: Transport) -> None:
        """Given an operation with odd text, when it arrives, then it does what it would have done here."""
        put = create("instance", "span", parent="mother", text='naïve \U0001f600 "quoted" \\ \n\x00 end')
        async with transport.opened() as queue:
            await queue.put(put)
            (got,) = await handle(queue, 1, transport.patience)
        assert (got.type, got.timestamp, got.idempotency_key) == (
            put.type,
            put.timestamp,
            put.idempotency_key,
        )
        assert {name: got.payload[name] for name in got.payload} == dict(put.payload)

    async def test_a_large_operation_arrives(self, transport: Transport) -> None:
        """Given an operation of nearly the largest size among small ones, when received, then in order."""
        large = create("instance", "large", text="x" * 1_000_000)
        put = [note("instance", 1), large, note("instance", 2)]
        async with transport.opened() as queue:
            for operation in put:
                await queue.put(operation)
            assert keys_of(await handle(queue, 3, transport.patience)) == keys_of(put)

    async def test_released_deliveries_come_again_in_order(self, transport: Transport) -> None:
        """Given deliveries in hand, when they are given back, then they come first, in their order."""
        put = notes("instance", 10)
        async with transport.opened() as queue:
            for operation in put:
                await queue.put(operation)
            held = await receive(queue, 5, transport.patience)
            await queue.settle(held[:2])
            await queue.release(held[2:])
            got = await handle(queue, 8, transport.patience)
        assert keys_of(got) == keys_of(put[2:])

    async def test_one_instance_in_trouble_holds_up_no_other(self, transport: Transport) -> None:
        """Given an instance that is held, when others are received, then they pass; it keeps its order."""
        slow, others = notes("slow", 3), notes("fast", 30)
        async with transport.opened() as queue:
            for operation in [*slow, *others]:
                await queue.put(operation)
            held = await receive(queue, 33, transport.patience)
            for delivery in held:
                if delivery.item.instance_id == "fast":
                    assert not await queue.settle([delivery])
            await queue.release([one for one in held if one.item.instance_id == "slow"])
            assert keys_of(await handle(queue, 3, transport.patience)) == keys_of(slow)
            assert keys_of(items(held)) != [], "what was handed out stays readable"

    async def test_receiving_keeps_the_count(self, transport: Transport) -> None:
        """Given plenty, when a few are asked for, then no more come, and at least one."""
        async with transport.opened() as queue:
            for operation in notes("instance", 20):
                await queue.put(operation)
            for wanted in (1, 3, 7):
                assert 1 <= len(await queue.receive(wanted, PLENTY)) <= wanted

    async def test_receiving_keeps_the_bytes(self, transport: Transport) -> None:
        """Given large operations, when bytes are bounded, then it stops after the one that reaches them."""
        async with transport.opened() as queue:
            for number in range(12):
                await queue.put(create("instance", f"span{number}", text=_BIG))
            for bound, most in ((1, 1), (30_000, 2), (50_000, 3)):
                async with asyncio.timeout(transport.patience):
                    got = await queue.receive(100, bound)
                assert 1 <= len(got) <= most
                assert sum(one.size for one in got[:-1]) < bound

    async def test_receiving_waits_for_the_first(self, transport: Transport) -> None:
        """Given an empty queue and a waiting receiver, when something is put, then the receiver has it."""
        async with transport.opened() as queue:
            receiver = asyncio.create_task(queue.receive(10, PLENTY))
            await queue.put(note("instance", 1))
            async with asyncio.timeout(transport.patience):
                (delivery,) = await receiver
            assert delivery.item.idempotency_key == "instance:note:0001"
            await queue.settle([delivery])

    async def test_each_receiver_is_woken(self, transport: Transport) -> None:
        """Given several receivers that wait, when as many come back at once, then each has one."""
        async with transport.opened() as queue:
            for operation in notes("instance", 3):
                await queue.put(operation)
            held = await receive(queue, 3, transport.patience)
            receivers = [asyncio.create_task(queue.receive(1, PLENTY)) for _ in held]
            await asyncio.sleep(0)  # so that they wait
            await queue.release(held)
            async with asyncio.timeout(transport.patience):
                got = [one for taken in await asyncio.gather(*receivers) for one in taken]
            assert sorted(keys_of(items(got))) == sorted(keys_of(notes("instance", 3)))

    async def test_a_receiver_that_is_cancelled_takes_nothing_along(self, transport: Transport) -> None:
        """Given two receivers that wait, when the one that is woken is cancelled, then the other has it."""
        async with transport.opened() as queue:
            await queue.put(note("instance", 1))
            (held,) = await receive(queue, 1, transport.patience)
            first = asyncio.create_task(queue.receive(1, PLENTY))
            second = asyncio.create_task(queue.receive(1, PLENTY))
            await asyncio.sleep(0)  # so that they wait, the first one first
            await queue.release([held])
            first.cancel()
            async with asyncio.timeout(transport.patience):
                (delivery,) = await second
            with pytest.raises(asyncio.CancelledError):
                await first
            assert delivery.item is held.item

    async def test_what_is_new_was_never_sent(self, transport: Transport) -> None:
        """Given operations that nobody has had, when they arrive, then none of them may have been sent."""
        async with transport.opened() as queue:
            for operation in notes("instance", 5):
                await queue.put(operation)
            assert not any(one.maybe_sent for one in await receive(queue, 5, transport.patience))
