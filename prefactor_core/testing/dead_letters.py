"""What becomes of dead letters, and of messages that nobody can read: kept, shown, never in the way."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from prefactor_core.broker.dead_letters import Selection, StoredDeadLetter
from prefactor_core.broker.envelope import Envelope, encode
from prefactor_core.testing.operations import by_instance, instances_in, interleaved, keys_of, note, notes
from prefactor_core.testing.receiving import drained, eventually, handle, items, receive
from prefactor_core.testing.transport import PARTITIONS, Contract, Transport
from prefactor_core.transport import BrokerQueue, DeadLetter, Operation

_ALL = Selection()
_REASON = "rejected: naïve"


@asynccontextmanager
async def dead_lettered(transport: Transport, put: list[Operation]) -> AsyncIterator[BrokerQueue]:
    """Yield a queue with operations that were put and dead-lettered."""
    async with transport.shared(*put) as queue:
        deliveries = await receive(queue, len(put), transport.patience)
        dead_letter = partial(DeadLetter, reason=_REASON, attempts=4, reply='{"code": 422}')
        assert not await queue.dead_letter([(one, dead_letter(one.item)) for one in deliveries])
        await drained(queue, transport.patience)
        yield queue


async def listed(queue: BrokerQueue, selection: Selection = _ALL) -> list[StoredDeadLetter]:
    """Return the dead letters that are meant."""
    return [one async for one in queue.dead_letters.list(selection)]


def operations_of(dead_letters: list[StoredDeadLetter]) -> list[Operation]:
    """Return the operations in them."""
    envelopes = [one.read() for one in dead_letters]
    return [envelope.operation for envelope in envelopes if envelope is not None]


def altered(**changes: object) -> bytes:
    """Return an envelope with other values; ``None`` removes a name."""
    fields = json.loads(encode(Envelope("an-id", 1, note("instance", 1)))) | changes
    return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()


NEWER = altered(v=2, more={"of": "it"})
GARBAGE = [
    b"",
    b"\x80\x04garbage\xff\xfe\x00",
    b"[]",
    b'{"v":1',
    NEWER,
    altered(v="1"),
    altered(id=None),
    altered(type="drop_everything"),
    altered(at="yesterday"),
    altered(body=None),
    altered(instance="another"),
]


class DeadLetterContract(Contract):
    """Put, list, show, replay, purge; what this release cannot read is kept, too."""

    async def test_a_dead_letter_says_everything(self, transport: Transport) -> None:
        """Given dead letters, when all have ended, then a later process finds each as it was, with why."""
        put = notes("instance", 250)
        async with dead_lettered(transport, put):
            pass
        async with transport.shared() as later:
            dead_letters = await listed(later)
            assert await later.dead_letters.purge(_ALL) == 250
        operations = operations_of(dead_letters)
        assert keys_of(operations) == keys_of(put)
        assert [(one.type, one.timestamp) for one in operations] == [(one.type, one.timestamp) for one in put]
        for one in dead_letters:
            assert (one.reason, one.attempts, one.reply) == (_REASON, 4, '{"code": 422}')
            envelope = one.read()
            assert envelope is not None
            assert one.id == envelope.id

    async def test_listing_and_purging(self, transport: Transport) -> None:
        """Given dead letters, when some are listed, then those come, in order; purged, they are gone."""
        put = interleaved([notes(f"instance{number}", 4) for number in range(5)])
        async with dead_lettered(transport, put) as queue:
            dead_letters = await listed(queue)
            assert by_instance(operations_of(dead_letters)) == by_instance(put)
            of_two = await listed(queue, Selection(instance="instance2"))
            assert keys_of(operations_of(of_two)) == keys_of(notes("instance2", 4))
            some = {one.id for one in dead_letters[3:6]}
            assert {one.id for one in await listed(queue, Selection(ids=some))} == some
            assert len(await listed(queue)) == len(put), "looking takes nothing away"
            async with queue.broker.dead_letters() as end:
                assert await end.count() == len(put)
            assert await queue.dead_letters.purge(Selection(ids={of_two[0].id})) == 1
            assert len(await listed(queue)) == len(put) - 1
            assert await queue.dead_letters.purge(_ALL) == len(put) - 1
            assert await queue.dead_letters.purge(_ALL) == 0
            assert await listed(queue) == []
            assert await queue.depth() == 0, "none is delivered"

    async def test_clearing(self, transport: Transport) -> None:
        """Given operations and dead letters that nobody wants, when all is cleared, then nothing is left."""
        async with dead_lettered(transport, notes("given-up", 3)) as queue:
            for operation in notes("waiting", 3):
                await queue.put(operation)
            assert await queue.flush(transport.patience)
        await queue.broker.clear()
        assert transport.leftovers is not None
        assert not list(await transport.leftovers())

    async def test_replaying(self, transport: Transport) -> None:
        """Given dead letters, when an instance is replayed and then all, then they come in sequence."""
        first, *others = [notes(f"instance{number}", 5) for number in range(6)]
        async with dead_lettered(transport, interleaved([first, *others])) as queue:
            assert (await queue.dead_letters.replay(Selection(instance="instance0"))).replayed == 5
            again = await receive(queue, 5, transport.patience)
            assert keys_of(items(again)) == keys_of(first)
            assert all(one.maybe_sent for one in again), "the API is asked whether it has them"
            assert all(one.replayed for one in again)
            assert not await queue.settle(again)
            rest = by_instance(interleaved(others))
            assert by_instance(operations_of(await listed(queue))) == rest
            assert (await queue.dead_letters.replay(_ALL)).replayed == 25
            assert by_instance(await handle(queue, 25, transport.patience)) == rest
            assert await listed(queue) == []

    async def test_replaying_with_a_new_key(self, transport: Transport) -> None:
        """Given a dead letter, when it is replayed with a new key, then it comes as new work."""
        put = notes("instance", 2)
        async with dead_lettered(transport, put) as queue:
            assert (await queue.dead_letters.replay(_ALL, new_key=True)).replayed == 2
            again = await receive(queue, 2, transport.patience)
            assert not set(keys_of(items(again))) & set(keys_of(put))
            assert [one.item.payload["payload"]["value"] for one in again] == [0, 1]
            assert not any(one.maybe_sent for one in again), "nobody has seen these keys"
            assert all(one.replayed for one in again), "refused, they are dead letters again"
            assert not await queue.settle(again)

    async def test_a_replay_is_answered(self, transport: Transport) -> None:
        """Given dead letters that are replayed, when some are refused again, then the replay says which."""
        put = notes("instance", 3)
        async with transport.shared() as operator, dead_lettered(transport, put) as queue:
            async with operator.broker.dead_letters() as end:
                if await end.open_answers() is None:
                    pytest.skip("this transport has no way back to the command that replays")
            replaying = asyncio.create_task(operator.dead_letters.replay(_ALL, wait=transport.patience))
            again = await receive(queue, 3, transport.patience)
            assert not await queue.settle(again[:1])
            assert not await queue.dead_letter([(one, DeadLetter(one.item, "again")) for one in again[1:]])
            replay = await replaying
            kept = [one.id for one in await listed(queue)]
            assert (replay.replayed, replay.delivered, replay.pending, replay.answers) == (3, 1, 0, True)
            assert {reason: sorted(ids) for reason, ids in replay.kept.items()} == {"again": sorted(kept)}
            assert len(kept) == 2

    async def test_an_answer_to_nobody_is_dropped(self, transport: Transport) -> None:
        """Given an address at which nobody waits, when a worker answers there, then nothing happens."""
        async with transport.shared() as queue:
            async with queue.broker.dead_letters() as end:
                address = await end.open_answers()
            async with queue.broker.consuming() as worker:
                for nobody in (address or "none", "written by anybody"):
                    await worker.answer(nobody, [b"{}"])
        await transport.leaves_nothing()

    async def test_garbage_is_dead_lettered_unread(self, several: Transport) -> None:
        """Given garbage among operations, when received, then it is kept as it is, and the rest goes on.

        Replayed, it stays: an envelope of a newer release waits for that.
        """
        (instance,) = instances_in(1, PARTITIONS, 1)
        put = notes(instance, 4)
        await several.put(*put[:2])
        await several.put_raw(1, GARBAGE)
        await several.put(*put[2:])
        async with several.shared() as queue:
            assert keys_of(await handle(queue, 4, several.patience)) == keys_of(put)
            whole = len(GARBAGE)
            dead = await eventually(lambda: listed(queue), lambda it: len(it) >= whole, several.patience)
            assert [one.envelope for one in dead] == GARBAGE
            assert all(one.reason and one.read() is None for one in dead)
            assert all(one.partition == 1 for one in dead)
            await drained(queue, several.patience)
            newer = next(one for one in dead if one.envelope == NEWER)
            assert "version 2" in newer.reason
            replay = await queue.dead_letters.replay(_ALL)
            assert (replay.replayed, replay.unreadable, list(replay.gone)) == (0, whole, [])
            assert [one.envelope for one in await listed(queue)] == GARBAGE
            assert await queue.dead_letters.purge(Selection(ids={newer.id})) == 1

    async def test_much_garbage_is_dead_lettered_unread(self, several: Transport) -> None:
        """Given a message larger than any operation, when received, then it, too, is kept, whole."""
        (instance,) = instances_in(0, PARTITIONS, 1)
        put = notes(instance, 1)
        huge = b"x" * several.takes_garbage_of
        await several.put_raw(0, [huge])
        async with several.shared(*put) as queue:
            assert keys_of(await handle(queue, 1, several.patience)) == keys_of(put)
            (dead_letter,) = await eventually(lambda: listed(queue), bool, several.patience)
            assert dead_letter.envelope == huge
