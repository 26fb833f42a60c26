"""The contract, part 9: what is no envelope is kept and shown, never executed, and stops nobody."""

import json

from prefactor_core.broker.dead_letters import Selection, StoredDeadLetter
from prefactor_core.broker.envelope import Envelope, encode
from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.testing.base import Contract
from prefactor_core.testing.dead_letters import listed
from prefactor_core.testing.operations import instances_in, keys_of, note, notes
from prefactor_core.testing.receiving import eventually, handle
from prefactor_core.testing.transport import Transport

_PARTITIONS = 2


def altered(**changes: object) -> bytes:
    """Return an envelope with other values; ``None`` removes a name."""
    fields = json.loads(encode(Envelope("an-id", 1, note("instance", 1)))) | changes
    return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()


GARBAGE = [
    b"",
    b"\x80\x04garbage\xff\xfe\x00",
    b"[]",
    b'{"v":1',
    altered(v=2, more={"of": "it"}),
    altered(v="1"),
    altered(id=None),
    altered(type="drop_everything"),
    altered(at="yesterday"),
    altered(body=None),
    altered(instance="another"),
]


async def quarantined(queue: BrokerQueue, how_many: int, within: float) -> list[StoredDeadLetter]:
    """Wait for so many dead letters, and return them."""
    return await eventually(lambda: listed(queue), lambda records: len(records) >= how_many, within)


class GarbageContract(Contract):
    """Messages that this release cannot read."""

    async def test_garbage_is_quarantined(self, transport: Transport) -> None:
        """Given garbage among operations, when received, then it is kept as it is, and the rest goes on."""
        url = transport.at(partitions=_PARTITIONS)
        (instance,) = instances_in(1, _PARTITIONS, 1)
        put = notes(instance, 4)
        await transport.put(*put[:2], url=url)
        await transport.put_raw(1, *GARBAGE, url=url)
        await transport.put(*put[2:], url=url)
        async with transport.shared(url) as queue:
            assert keys_of(await handle(queue, 4, transport.patience)) == keys_of(put)
            records = await quarantined(queue, len(GARBAGE), transport.patience)
            assert [record.envelope for record in records] == GARBAGE
            assert all(record.reason and record.read() is None for record in records)
            assert all(record.partition == 1 for record in records)
            await eventually(queue.depth, lambda depth: depth == 0, transport.patience)

    async def test_an_unknown_version_is_kept(self, transport: Transport) -> None:
        """Given an envelope of a newer release, when everything is replayed, then it stays for that."""
        url = transport.at(partitions=_PARTITIONS)
        newer = altered(v=2)
        await transport.put_raw(0, newer, url=url)
        async with transport.shared(url) as queue:
            await queue.put(note("instance", 1))
            await handle(queue, 1, transport.patience)
            (record,) = await quarantined(queue, 1, transport.patience)
            assert "version 2" in record.reason
            replay = await queue.dead_letters.replay(Selection())
            assert (replay.replayed, replay.unreadable, list(replay.gone)) == (0, 1, [])
            (kept,) = await listed(queue)
            assert kept.envelope == newer
            assert await queue.dead_letters.purge(Selection(ids={kept.id})) == 1

    async def test_much_garbage_is_quarantined(self, transport: Transport) -> None:
        """Given a message larger than any operation, when received, then it, too, is kept, whole."""
        url = transport.at(partitions=_PARTITIONS)
        (instance,) = instances_in(0, _PARTITIONS, 1)
        huge = b"x" * transport.takes_garbage_of
        await transport.put_raw(0, huge, url=url)
        await transport.put(note(instance, 1), url=url)
        async with transport.shared(url) as queue:
            assert keys_of(await handle(queue, 1, transport.patience)) == keys_of([note(instance, 1)])
            (record,) = await quarantined(queue, 1, transport.patience)
            assert record.envelope == huge
