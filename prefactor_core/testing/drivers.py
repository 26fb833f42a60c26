"""The contract, part 10: a broker's driver by itself, where the shared code above would hide its mistakes."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from prefactor_core.broker.dead_letters import StoredDeadLetter, encode_dead_letter
from prefactor_core.broker.driver import Broker, ConsumingEnd, Message, Partition
from prefactor_core.broker.envelope import Envelope, encode
from prefactor_core.testing.base import Contract
from prefactor_core.testing.dead_letters import listed
from prefactor_core.testing.operations import notes
from prefactor_core.testing.receiving import PLENTY, eventually
from prefactor_core.testing.transport import Transport

_PUT = [encode(Envelope(f"id-{number}", number, note)) for number, note in enumerate(notes("instance", 6))]


@asynccontextmanager
async def consuming(broker: Broker) -> AsyncIterator[ConsumingEnd]:
    """Yield an end to consume through, joined to the fleet."""
    end = broker.consuming()
    try:
        await end.partitions()
        await end.fleet()
        yield end
    finally:
        await end.disconnect()


async def own(end: ConsumingEnd, within: float) -> Partition:
    """Become the owner of the only partition, once nobody else is."""
    partition = await eventually(lambda: end.acquire(0, 100), lambda found: found is not None, within)
    assert partition is not None
    assert (partition.number, partition.held) == (0, True)
    return partition


async def read(partition: Partition, how_many: int) -> list[Message]:
    """Read so many messages."""
    found: list[Message] = []
    while len(found) < how_many:
        more = await partition.read(how_many - len(found), PLENTY)
        assert more, f"only {len(found)} of {how_many} messages"
        found += more
    return found


def records(messages: Sequence[Message]) -> list[tuple[Message, bytes]]:
    """Return the messages, each with the record of a dead letter."""
    return [
        (one, encode_dead_letter(StoredDeadLetter.of(one.data, 0, "no use", 1, None))) for one in messages
    ]


class DriverContract(Contract):
    """One owner, and disposal that is fenced and can be repeated."""

    async def test_disposing_again_is_harmless(self, transport: Transport) -> None:
        """Given messages that are disposed of, when the owner repeats itself, then nothing more happens."""
        url = transport.at(partitions=1)
        await transport.put_raw(0, *_PUT, url=url)
        async with transport.shared(url) as queue, consuming(queue.broker) as end:
            partition = await own(end, transport.patience)
            messages = await read(partition, 6)
            assert [message.data for message in messages] == _PUT
            for _ in range(2):
                assert not await partition.settle(messages[:2])
                assert not await partition.dead_letter(records(messages[2:4]))
            assert not await partition.settle(messages[2:4])
            assert [record.envelope for record in await listed(queue)] == _PUT[2:4]
            await partition.release()
            again = await own(end, transport.patience)
            left = await read(again, 2)
            assert [message.data for message in left] == _PUT[4:]
            assert not await again.settle(left)
            await again.release()

    async def test_a_past_owner_is_refused(self, transport: Transport) -> None:
        """Given a partition that another has taken, when its past owner disposes, then that is refused."""
        url = transport.at(partitions=1)
        await transport.put_raw(0, *_PUT, url=url)
        async with (
            transport.shared(url) as queue,
            consuming(queue.broker) as one,
            consuming(queue.broker) as other,
        ):
            past = await own(one, transport.patience)
            messages = await read(past, 6)
            assert not await past.settle(messages[:1])
            assert await other.acquire(0, 100) is None, "one owner at a time"
            await past.release()
            assert not past.held
            owner = await own(other, transport.patience)
            theirs = await read(owner, 5)
            assert [message.data for message in theirs] == _PUT[1:]
            assert all(message.redelivered for message in theirs)
            assert list(await past.settle(messages[1:3])) == messages[1:3]
            assert list(await past.dead_letter(records(messages[3:5]))) == messages[3:5]
            await past.release()
            assert owner.held, "a release that is repeated is nobody else's"
            assert await listed(queue) == []
            assert not await owner.settle(theirs)
            await owner.release()
            await owner.release()

    async def test_reading_keeps_its_bounds(self, transport: Transport) -> None:
        """Given plenty, when a few are read, then no more come, each once; a large one comes whole."""
        url = transport.at(partitions=1)
        await transport.put_raw(0, *_PUT, url=url)
        async with transport.shared(url) as queue, consuming(queue.broker) as end:
            partition = await own(end, transport.patience)
            first = await partition.read(2, PLENTY)
            assert 1 <= len(first) <= 2
            second = await partition.read(100, 1)
            assert len(second) >= 1
            seen = [message.data for message in first + second]
            rest = await read(partition, 6 - len(seen)) if len(seen) < 6 else []
            assert seen + [message.data for message in rest] == _PUT
            await partition.release()
