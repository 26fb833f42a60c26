"""The contract, part 11: many publishers of one partition, and a reader at its tail."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prefactor_core.broker.driver import ConsumingEnd, Message
from prefactor_core.exceptions import BrokerError
from prefactor_core.testing.base import Contract
from prefactor_core.testing.drivers import consuming, own
from prefactor_core.testing.operations import numbered
from prefactor_core.testing.receiving import PLENTY
from prefactor_core.testing.transport import Transport

_NAMES = ("one", "two")
_ENDS = 4
_MESSAGES = 60
_AT_ONCE = 100


class PublishersContract(Contract):
    """What is confirmed reaches a reader that has read on meanwhile."""

    async def test_publishers_of_one_partition(self, transport: Transport) -> None:
        """Given a reader at the tail, when two processes publish through many ends, then it has everything.

        A message that becomes visible behind one that was read already is passed over until somebody else
        owns the partition, and is then out of order. The processes are killed at their last confirmation:
        what is confirmed is safe.
        """
        url = transport.at(partitions=1)
        put = [numbered(f"{name}.{end}", _MESSAGES) for name in _NAMES for end in range(_ENDS)]
        everything = {message for each in put for message in each}
        async with transport.shared(url) as queue, consuming(queue.broker) as end:
            done = asyncio.Event()
            reading = asyncio.create_task(_read(end, everything, done, transport.patience))
            try:
                async with asyncio.timeout(transport.patience * 2):
                    async with _publisher(url, _NAMES[0]) as one, _publisher(url, _NAMES[1]) as two:
                        await asyncio.gather(_hears(one, b"ready"), _hears(two, b"ready"))
                        for process in (one, two):
                            _go(process)
                        await asyncio.gather(_hears(one, b"published"), _hears(two, b"published"))
                    done.set()
                    arrived = await reading
            finally:
                reading.cancel()
            late = set(await _read(end, everything.difference(arrived), done, transport.patience))
        assert not late.difference(arrived), (
            f"{len(late)} of {len(everything)} messages became visible behind others that had been read, and "
            "were passed over; docs/write-a-transport.md says how to keep them in order"
        )
        lost = len(everything.difference(arrived))
        assert not lost, f"{lost} of {len(everything)} messages were confirmed and are not there"
        found = list(dict.fromkeys(arrived))  # a batch that failed may have been stored twice
        by_publisher = [[message for message in found if message in own] for own in map(set, put)]
        assert by_publisher == put, "the messages of each publisher come in its order"


async def _read(end: ConsumingEnd, everything: set[bytes], done: asyncio.Event, within: float) -> list[bytes]:
    """Read as an owner until everything was there, or all is published and nothing more comes; settle it."""
    partition = await own(end, within)
    arrived: list[bytes] = []
    unsettled: list[Message] = []
    missing = set(everything)
    while missing:
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
        missing.difference_update(message.data for message in found)
        unsettled += found
        if len(unsettled) >= _AT_ONCE:  # seldom, so that it reads all the time
            await partition.settle(unsettled)
            unsettled = []
    await partition.settle(unsettled)
    await partition.release()
    return arrived


@asynccontextmanager
async def _publisher(url: str, name: str) -> AsyncIterator[Process]:
    """Yield a process that is ready to publish; it is killed in the end if it runs still."""
    program = (sys.executable, "-m", "prefactor_core.testing.publisher")
    arguments = (url, name, str(_ENDS), str(_MESSAGES))
    process = await asyncio.create_subprocess_exec(*program, *arguments, stdin=PIPE, stdout=PIPE)
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _hears(process: Process, word: bytes) -> None:
    """Wait for what a publisher says."""
    assert process.stdout is not None
    line = await process.stdout.readline()
    assert word in line, f"a publisher failed before it was {word.decode()}"


def _go(process: Process) -> None:
    """Let a publisher begin."""
    assert process.stdin is not None
    process.stdin.write(b"go\n")
