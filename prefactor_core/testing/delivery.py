"""What every queue holds of deliveries: all arrive once and in order, and stay settled or dead-lettered."""

import asyncio

import pytest

from prefactor_core.testing.operations import by_instance, create, interleaved, keys_of, life, note, notes
from prefactor_core.testing.receiving import PLENTY, drained, eventually, handle, items, receive
from prefactor_core.testing.transport import Contract, Transport
from prefactor_core.transport import DeadLetter, QueueClosedError


class DeliveryContract(Contract):
    """Order by instance, bounds on what is received, and releasing; what is disposed of stays so."""

    async def test_order_by_instance(self, transport: Transport) -> None:
        """Given many instances put in turn, when all is received, then each is there once and in order."""
        put = interleaved([life(f"instance{number}", spans=5) for number in range(20)])
        async with transport.opened(*put) as queue:
            got = await handle(queue, len(put), transport.patience)
        assert sorted(keys_of(got)) == sorted(keys_of(put))
        assert by_instance(got) == by_instance(put)

    async def test_operations_arrive_unchanged(self, transport: Transport) -> None:
        """Given an operation with odd text, when it arrives, then it does what it would have done here."""
        put = create("instance", "span", parent="mother", text='naïve \U0001f600 "quoted" \\ \n\x00 end')
        async with transport.opened(put) as queue:
            (got,) = await handle(queue, 1, transport.patience)
        for name in ("type", "timestamp", "idempotency_key"):
            assert getattr(got, name) == getattr(put, name)
        assert {name: got.payload[name] for name in got.payload} == dict(put.payload)

    async def test_a_large_operation_arrives(self, transport: Transport) -> None:
        """Given an operation of nearly the largest size among small ones, when received, then in order."""
        put = [note("instance", 1), create("instance", "large", text="x" * 1_000_000), note("instance", 2)]
        async with transport.opened(*put) as queue:
            assert keys_of(await handle(queue, 3, transport.patience)) == keys_of(put)

    async def test_one_instance_in_trouble_holds_up_no_other(self, transport: Transport) -> None:
        """Given an instance that is held, when others are received, then they pass; it keeps its order."""
        slow, others = notes("slow", 3), notes("fast", 30)
        async with transport.opened(*slow, *others) as queue:
            held = await receive(queue, 33, transport.patience)
            for delivery in held:
                if delivery.item.instance_id == "fast":
                    assert not await queue.settle([delivery])
            await queue.release([one for one in held if one.item.instance_id == "slow"])
            assert keys_of(await handle(queue, 3, transport.patience)) == keys_of(slow)
            assert keys_of(items(held)) != [], "what was handed out stays readable"

    async def test_receiving_keeps_the_count(self, transport: Transport) -> None:
        """Given plenty, when a few are asked for, then no more come, and at least one."""
        async with transport.opened(*notes("instance", 20)) as queue:
            for wanted in (1, 3, 7):
                assert 1 <= len(await queue.receive(wanted, PLENTY)) <= wanted

    async def test_receiving_keeps_the_bytes(self, transport: Transport) -> None:
        """Given large operations, when bytes are bounded, then it stops after the one that reaches them."""
        put = [create("instance", f"span{number}", text="x" * 20_000) for number in range(12)]
        async with transport.opened(*put) as queue:
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
        put = notes("instance", 3)
        async with transport.opened(*put) as queue:
            held = await receive(queue, 3, transport.patience)
            receivers = [asyncio.create_task(queue.receive(1, PLENTY)) for _ in held]
            await asyncio.sleep(0)  # so that they wait
            await queue.release(held)
            async with asyncio.timeout(transport.patience):
                got = [one for taken in await asyncio.gather(*receivers) for one in taken]
            assert sorted(keys_of(items(got))) == sorted(keys_of(put))

    async def test_a_receiver_that_is_cancelled_takes_nothing_along(self, transport: Transport) -> None:
        """Given two receivers that wait, when the one that is woken is cancelled, then the other has it."""
        async with transport.opened(note("instance", 1)) as queue:
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

    async def test_depth_counts_what_is_unsettled(self, transport: Transport) -> None:
        """Given deliveries, when some are settled, however often, then the depth is the rest, in order.

        Those that are released come first.
        """
        put = notes("instance", 10)
        async with transport.opened() as queue:
            assert await queue.depth() == 0
            for operation in put:
                await queue.put(operation)
            await eventually(queue.depth, lambda depth: depth == 10, transport.patience)
            held = await receive(queue, 5, transport.patience)
            if transport.counts_handed_out:
                assert await queue.depth() == 10
            for _ in range(3):
                assert not await queue.settle(held[:2])
            if transport.counts_handed_out:
                assert await queue.depth() == 8
            await queue.release(held[2:])
            assert keys_of(await handle(queue, 8, transport.patience)) == keys_of(put[2:])
            await drained(queue, transport.patience)

    async def test_dead_lettering_has_its_effect_once(self, transport: Transport) -> None:
        """Given a dead letter, when it is dead-lettered again, or settled, then nothing more happens."""
        async with transport.opened(*notes("instance", 3)) as queue:
            dead, *rest = await receive(queue, 3, transport.patience)
            dead_letter = DeadLetter(dead.item, "no use", attempts=2, reply="no")
            for _ in range(2):
                assert not await queue.dead_letter([(dead, dead_letter)])
            assert not await queue.settle([dead])
            if transport.counts_handed_out:
                assert await queue.depth() == 2
            assert not await queue.settle(rest)
            await drained(queue, transport.patience)

    async def test_what_was_handed_out_can_be_settled_after_close(self, transport: Transport) -> None:
        """Given deliveries in hand, when the queue is closed, then they can be disposed of all the same."""
        async with transport.opened(*notes("instance", 3)) as queue:
            held = await receive(queue, 3, transport.patience)
            await queue.close()
            assert not await queue.settle(held[:1])
            assert not await queue.dead_letter([(held[1], DeadLetter(held[1].item, "no use"))])
            assert not await queue.settle(held[2:])
            await drained(queue, transport.patience)

    async def test_getting_settles(self, transport: Transport) -> None:
        """Given the published interface alone, when items are got, then they are gone, in order."""
        put = notes("instance", 3)
        async with transport.opened(*put) as queue:
            assert keys_of([await queue.get() for _ in put]) == keys_of(put)
            await drained(queue, transport.patience)
            await queue.close()
            with pytest.raises(QueueClosedError):
                await queue.get()

    async def test_settling_across_instances(self, transport: Transport) -> None:
        """Given new deliveries of many instances, when settled in one call, then all of them are."""
        async with transport.opened(*(note(f"instance{number}", 1) for number in range(40))) as queue:
            held = await receive(queue, 40, transport.patience)
            assert not any(one.maybe_sent for one in held), "nobody has had them before"
            assert not await queue.settle(held)
            await drained(queue, transport.patience)
