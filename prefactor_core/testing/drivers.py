"""A broker's driver by itself, where the shared code above it would hide its mistakes."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from prefactor_core.broker.dead_letters import StoredDeadLetter, encode_dead_letter
from prefactor_core.broker.envelope import Envelope, encode
from prefactor_core.testing.dead_letters import listed
from prefactor_core.testing.operations import notes, numbered
from prefactor_core.testing.processes import Program
from prefactor_core.testing.receiving import PLENTY, eventually
from prefactor_core.testing.transport import Contract, Transport
from prefactor_core.transport import Broker, BrokerError, ConsumingEnd, Message, Partition

_PUT = [encode(Envelope(f"id-{number}", number, note)) for number, note in enumerate(notes("instance", 6))]
_PUBLISHERS = ("one", "two")
_ENDS = 4
_MESSAGES = 60
_AT_ONCE = 100


@asynccontextmanager
async def consuming(broker: Broker) -> AsyncIterator[ConsumingEnd]:
    """Yield an end to consume through, joined to the fleet."""
    async with broker.consuming() as end:
        await end.partitions()
        await end.fleet()
        yield end


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


def dead(messages: Sequence[Message]) -> list[tuple[Message, bytes]]:
    """Return the messages, each with its dead letter."""
    return [
        (one, encode_dead_letter(StoredDeadLetter.of(one.data, 0, "no use", 1, None))) for one in messages
    ]


class DriverContract(Contract):
    """One owner, disposal that is fenced and can be repeated, and a tail at which nothing is passed over."""

    async def test_disposing_again_is_harmless(self, single: Transport) -> None:
        """Given messages that are disposed of, when the owner repeats itself, then nothing more happens."""
        await single.put_raw(0, _PUT)
        async with single.shared() as queue, consuming(queue.broker) as end:
            partition = await own(end, single.patience)
            messages = await read(partition, 6)
            assert [message.data for message in messages] == _PUT
            for _ in range(2):
                assert not await partition.settle(messages[:2])
                assert not await partition.dead_letter(dead(messages[2:4]))
            assert not await partition.settle(messages[2:4])
            assert [one.envelope for one in await listed(queue)] == _PUT[2:4]
            await partition.release()
            again = await own(end, single.patience)
            left = await read(again, 2)
            assert [message.data for message in left] == _PUT[4:]
            assert not await again.settle(left)
            await again.release()

    async def test_a_past_owner_is_refused(self, single: Transport) -> None:
        """Given a partition that another has taken, when its past owner disposes, then that is refused."""
        await single.put_raw(0, _PUT)
        async with single.shared() as queue, consuming(queue.broker) as one, consuming(queue.broker) as other:
            past = await own(one, single.patience)
            messages = await read(past, 6)
            assert not await past.settle(messages[:1])
            assert await other.acquire(0, 100) is None, "one owner at a time"
            await past.release()
            assert not past.held
            owner = await own(other, single.patience)
            theirs = await read(owner, 5)
            assert [message.data for message in theirs] == _PUT[1:]
            assert all(message.redelivered for message in theirs)
            assert list(await past.settle(messages[1:3])) == messages[1:3]
            assert list(await past.dead_letter(dead(messages[3:5]))) == messages[3:5]
            await past.release()
            assert owner.held, "a release that is repeated is nobody else's"
            assert await listed(queue) == []
            assert not await owner.settle(theirs)
            await owner.release()
            await owner.release()

    async def test_reading_keeps_its_bounds(self, single: Transport) -> None:
        """Given plenty, when a few are read, then no more come, each once; a large one comes whole."""
        await single.put_raw(0, _PUT)
        async with single.shared() as queue, consuming(queue.broker) as end:
            partition = await own(end, single.patience)
            first = await partition.read(2, PLENTY)
            assert 1 <= len(first) <= 2
            second = await partition.read(100, 1)
            assert 1 <= len(second) < 6 - len(first), "what is read is not bounded by bytes"
            rest = await read(partition, 6 - len(first + second))
            assert [message.data for message in first + second + rest] == _PUT
            await partition.release()

    async def test_publishers_of_one_partition(self, single: Transport) -> None:
        """Given a reader at the tail, when two processes publish through many ends, then it has everything.

        A message that becomes visible behind one that was read already is passed over until somebody else
        owns the partition, and is then out of order. The processes are killed at their last confirmation:
        what is confirmed is safe.
        """
        put = [numbered(f"{name}.{end}", _MESSAGES) for name in _PUBLISHERS for end in range(_ENDS)]
        everything = {message for each in put for message in each}
        async with single.shared() as queue, consuming(queue.broker) as end:
            done = asyncio.Event()
            reading = asyncio.create_task(_read(end, everything, done, single.patience))
            try:
                async with asyncio.timeout(single.patience * 2):
                    await _publish(single)
                    done.set()
                    arrived = await reading
            finally:
                reading.cancel()
            late = set(await _read(end, everything.difference(arrived), done, single.patience))
        assert not late.difference(arrived), (
            f"{len(late)} of {len(everything)} messages became visible behind others that had been read, and "
            "were passed over; docs/write-a-transport.md says how to keep them in order"
        )
        lost = len(everything.difference(arrived))
        assert not lost, f"{lost} of {len(everything)} messages were confirmed and are not there"
        found = list(dict.fromkeys(arrived))  # a batch that failed may have been stored twice
        by_publisher = [[message for message in found if message in own] for own in map(set, put)]
        assert by_publisher == put, "the messages of each publisher come in its order"


async def _publish(transport: Transport) -> None:
    """Have all publishers begin together, and wait until everything is confirmed."""
    module, numbers = "prefactor_core.testing.publisher", (str(_ENDS), str(_MESSAGES))
    one, two = (Program.running(module, transport.url, name, *numbers) for name in _PUBLISHERS)
    async with one as first, two as second:
        for publisher in (first, second):
            await publisher.until(lambda it: {"event": "ready"} in it.events, transport.patience)
        for publisher in (first, second):
            publisher.tell("go")
        for publisher in (first, second):
            await publisher.until(lambda it: {"event": "published"} in it.events, transport.patience)


async def _read(end: ConsumingEnd, everything: set[bytes], done: asyncio.Event, within: float) -> list[bytes]:
    """Read as an owner until everything was there, or all is published and nothing more comes; settle it."""
    partition = await own(end, within)
    arrived: list[bytes] = []
    unsettled: list[Message] = []
    while everything.difference(arrived):
        over = done.is_set()
        try:
            found = await partition.read(_AT_ONCE, PLENTY)
        except BrokerError:
            assert not partition.held, "it cannot be read"
            # Its lease ran out in the throng, which is no mistake.
            await partition.release()
            partition, unsettled = await own(end, within), []
            continue
        if over and not found:
            break
        arrived += [message.data for message in found]
        unsettled += found
        if len(unsettled) >= _AT_ONCE:  # seldom, so that it reads all the time
            await partition.settle(unsettled)
            unsettled = []
    await partition.settle(unsettled)
    await partition.release()
    return arrived
