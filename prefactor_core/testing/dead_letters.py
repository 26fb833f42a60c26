"""The contract, part 8: looking after dead letters."""

import asyncio

import pytest

from prefactor_core.broker.dead_letters import Selection, StoredDeadLetter
from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.operations import Operation
from prefactor_core.queue.base import DeadLetter
from prefactor_core.testing.base import Contract
from prefactor_core.testing.operations import by_instance, interleaved, keys_of, notes
from prefactor_core.testing.receiving import eventually, handle, items, receive
from prefactor_core.testing.transport import Transport

_ALL = Selection()
_REASON = "rejected: naïve"


async def dead_letter_all(queue: BrokerQueue, put: list[Operation], within: float) -> None:
    """Put operations and give all of them up."""
    for operation in put:
        await queue.put(operation)
    deliveries = await receive(queue, len(put), within)
    letters = [(one, DeadLetter(one.item, _REASON, attempts=4, reply='{"code": 422}')) for one in deliveries]
    assert not await queue.dead_letter(letters)
    await eventually(queue.depth, lambda depth: depth == 0, within)


async def listed(queue: BrokerQueue, selection: Selection = _ALL) -> list[StoredDeadLetter]:
    """Return the dead letters that are meant."""
    return [record async for record in queue.dead_letters.list(selection)]


def operations_of(records: list[StoredDeadLetter]) -> list[Operation]:
    """Return the operations in them."""
    envelopes = [record.read() for record in records]
    return [envelope.operation for envelope in envelopes if envelope is not None]


class DeadLetterContract(Contract):
    """Put, list, show, replay, purge."""

    async def test_a_dead_letter_says_everything(self, transport: Transport) -> None:
        """Given a dead letter, when it is shown, then the operation is as it was, with the reason."""
        put = notes("instance", 1)
        async with transport.shared() as queue:
            await dead_letter_all(queue, put, transport.patience)
            (record,) = await listed(queue)
        envelope = record.read()
        assert envelope is not None
        assert (envelope.operation.type, envelope.operation.timestamp) == (put[0].type, put[0].timestamp)
        assert keys_of([envelope.operation]) == keys_of(put)
        assert (record.reason, record.attempts, record.reply) == (_REASON, 4, '{"code": 422}')
        assert record.id == envelope.id

    async def test_listing(self, transport: Transport) -> None:
        """Given dead letters of several instances, when some are asked for, then those come, in order."""
        put = interleaved([notes(f"instance{number}", 4) for number in range(5)])
        async with transport.shared() as queue:
            await dead_letter_all(queue, put, transport.patience)
            records = await listed(queue)
            assert by_instance(operations_of(records)) == by_instance(put)
            of_two = await listed(queue, Selection(instance="instance2"))
            assert keys_of(operations_of(of_two)) == keys_of(notes("instance2", 4))
            some = {record.id for record in records[3:6]}
            assert {record.id for record in await listed(queue, Selection(ids=some))} == some
            assert len(await listed(queue)) == len(put), "looking takes nothing away"
            async with queue.broker.dead_letters() as end:
                assert await end.count() == len(put)

    async def test_clearing(self, transport: Transport) -> None:
        """Given operations and dead letters that nobody wants, when all is cleared, then nothing is left."""
        async with transport.shared() as queue:
            await dead_letter_all(queue, notes("given-up", 3), transport.patience)
            for operation in notes("waiting", 3):
                await queue.put(operation)
            assert await queue.flush(transport.patience)
        await queue.broker.clear()
        assert transport.leftovers is not None
        assert not list(await transport.leftovers())

    async def test_replaying_an_instance(self, transport: Transport) -> None:
        """Given dead letters, when an instance is replayed, then it comes in sequence, as maybe sent."""
        put = interleaved([notes("one", 5), notes("two", 5)])
        async with transport.shared() as queue:
            await dead_letter_all(queue, put, transport.patience)
            assert (await queue.dead_letters.replay(Selection(instance="one"))).replayed == 5
            again = await receive(queue, 5, transport.patience)
            assert keys_of(items(again)) == keys_of(notes("one", 5))
            assert all(one.maybe_sent for one in again), "the API is asked whether it has them"
            assert not await queue.settle(again)
            assert keys_of(operations_of(await listed(queue))) == keys_of(notes("two", 5))

    async def test_replaying_everything(self, transport: Transport) -> None:
        """Given dead letters of many instances, when all are replayed, then each comes in its sequence."""
        put = interleaved([notes(f"instance{number}", 5) for number in range(6)])
        async with transport.shared() as queue:
            await dead_letter_all(queue, put, transport.patience)
            assert (await queue.dead_letters.replay(Selection())).replayed == 30
            assert by_instance(await handle(queue, 30, transport.patience)) == by_instance(put)
            assert await listed(queue) == []

    async def test_replaying_with_a_new_key(self, transport: Transport) -> None:
        """Given a dead letter, when it is replayed with a new key, then it comes as new work."""
        put = notes("instance", 2)
        async with transport.shared() as queue:
            await dead_letter_all(queue, put, transport.patience)
            assert (await queue.dead_letters.replay(Selection(), new_key=True)).replayed == 2
            again = await receive(queue, 2, transport.patience)
            assert not set(keys_of(items(again))) & set(keys_of(put))
            assert [one.item.payload["payload"]["value"] for one in again] == [0, 1]
            assert not any(one.maybe_sent for one in again), "nobody has seen these keys"
            assert not await queue.settle(again)

    async def test_a_replay_is_answered(self, transport: Transport) -> None:
        """Given dead letters that are replayed, when some are refused again, then the replay says which."""
        put = notes("instance", 3)
        async with transport.shared() as queue, transport.shared() as operator:
            async with operator.broker.dead_letters() as end:
                if await end.open_answers() is None:
                    pytest.skip("this transport has no way back to the command that replays")
            await dead_letter_all(queue, put, transport.patience)
            replaying = asyncio.create_task(operator.dead_letters.replay(_ALL, wait=transport.patience))
            again = await receive(queue, 3, transport.patience)
            assert not await queue.settle(again[:1])
            assert not await queue.dead_letter([(one, DeadLetter(one.item, "again")) for one in again[1:]])
            replay = await replaying
            kept = [record.id for record in await listed(queue)]
            assert (replay.replayed, replay.delivered, replay.pending, replay.answers) == (3, 1, 0, True)
            assert {reason: sorted(ids) for reason, ids in replay.kept.items()} == {"again": sorted(kept)}
            assert len(kept) == 2

    async def test_an_answer_to_nobody_is_dropped(self, transport: Transport) -> None:
        """Given an address at which nobody waits, when a worker answers there, then nothing happens."""
        async with transport.shared() as queue:
            async with queue.broker.dead_letters() as end:
                address = await end.open_answers()
            consuming = queue.broker.consuming()
            try:
                for nobody in (address or "none", "written by anybody"):
                    await consuming.answer(nobody, [b"{}"])
            finally:
                await consuming.disconnect()
        assert transport.leftovers is not None
        await eventually(
            transport.leftovers, lambda names: set(names) <= set(transport.keeps), transport.patience
        )

    async def test_purging(self, transport: Transport) -> None:
        """Given dead letters, when some are purged and then all, then those are gone, and not delivered."""
        put = interleaved([notes("one", 3), notes("two", 3)])
        async with transport.shared() as queue:
            await dead_letter_all(queue, put, transport.patience)
            first = (await listed(queue, Selection(instance="one")))[0]
            assert await queue.dead_letters.purge(Selection(ids={first.id})) == 1
            assert len(await listed(queue)) == 5
            assert await queue.dead_letters.purge(Selection()) == 5
            assert await queue.dead_letters.purge(Selection()) == 0
            assert await listed(queue) == []
            assert await queue.depth() == 0

    async def test_dead_letters_outlive_everybody(self, transport: Transport) -> None:
        """Given dead letters, when all have ended, then a later process finds them."""
        async with transport.shared() as queue:
            await dead_letter_all(queue, notes("instance", 250), transport.patience)
        async with transport.shared() as later:
            assert keys_of(operations_of(await listed(later))) == keys_of(notes("instance", 250))
            assert await later.dead_letters.purge(Selection()) == 250
