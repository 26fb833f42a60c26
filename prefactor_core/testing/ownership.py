"""The contract, part 5: one owner at a time, and what becomes of one that dies or freezes."""

from prefactor_core.testing.base import Contract
from prefactor_core.testing.dead_letters import listed
from prefactor_core.testing.operations import REJECTED, by_instance, instances_in, interleaved, keys_of, notes
from prefactor_core.testing.receiving import eventually, handle, items, receive
from prefactor_core.testing.transport import Transport
from prefactor_core.testing.workers import Worker

_PARTITIONS = 4


class OwnershipContract(Contract):
    """The next owner goes on where the effects end; one that lost a partition can do nothing to it."""

    async def test_a_killed_consumer_is_succeeded(self, transport: Transport) -> None:
        """Given a consumer killed in the middle, when another comes, then it begins with the unsettled."""
        url = transport.at(partitions=_PARTITIONS)
        put = interleaved([notes(f"instance{number}", 8) for number in range(6)])
        await transport.put(*put, url=url)
        async with Worker.running(url, handle=17) as dying, transport.shared(url) as successor:
            await dying.until(lambda it: len(it.keys("handling")) == 18, transport.patience)
            handled, held = dying.keys("handled"), dying.keys("handling")[-1]
            await dying.kill()
            deliveries = await receive(successor, len(put) - 17, transport.patience)
            rest = [operation for operation in put if operation.idempotency_key not in handled]
            assert by_instance(items(deliveries)) == by_instance(rest)
            (again,) = [one for one in deliveries if one.item.idempotency_key == held]
            assert again.maybe_sent, "it is not known what the dead one did with it"
            assert not await successor.settle(deliveries)
            await eventually(successor.depth, lambda depth: depth == 0, transport.patience)

    async def test_a_frozen_consumer_is_succeeded(self, transport: Transport) -> None:
        """Given a consumer that was frozen and succeeded, when it wakes, then it can do nothing any more.

        It is frozen with two operations, one to be settled and one to be dead-lettered, with more of them
        received and an idle hand for those, and while it waits for what comes next.
        """
        url = transport.at(partitions=1)
        first, second = [notes(f"instance{number}", 5) for number in range(2)]
        rejected = keys_of(second)[0]
        await transport.put(*first, *second, url=url)
        frozen_one = Worker.running(url, handle=0, workers=3, reject=[rejected])
        async with frozen_one as frozen, transport.shared(url) as successor:
            await frozen.until(lambda it: len(it.keys("handling")) == 2, transport.patience)
            frozen.freeze()
            more = [*notes("instance0", 5, first=5), *notes("instance1", 5, first=5)]
            await transport.put(*more, url=url)
            everything = [*first, *second, *more]
            deliveries = await receive(successor, len(everything), transport.patience)
            assert by_instance(items(deliveries)) == by_instance(everything)
            assert not await successor.settle(deliveries[:2])
            frozen.wake()
            frozen.go()
            await frozen.until(lambda it: len(it.keys("handled")) == 2, transport.patience)
            assert not await successor.settle(deliveries[2:]), "what it does is no concern of the owner's"
            account = await frozen.stop(transport.patience)
            assert len(frozen.keys("handling")) == 2, "it was served nothing ahead of its successor"
            assert (account["settled"], account["dead_lettered"], account["held"]) == (0, 0, 0)
            assert account["released"] == account["received"] >= 2
            assert await listed(successor) == []
            await eventually(successor.depth, lambda depth: depth == 0, transport.patience)

    async def test_a_rejection_arrives(self, transport: Transport) -> None:
        """Given a consumer that gives an operation up, when it ends well, then the dead letter says why."""
        url = transport.at(partitions=1)
        put = notes("instance", 3)
        await transport.put(*put, url=url)
        async with Worker.running(url, reject=keys_of(put)[1:2]) as worker, transport.shared(url) as other:
            await worker.until(lambda it: len(it.keys("handled")) == 3, transport.patience)
            (letter,) = await eventually(lambda: listed(other), lambda letters: letters, transport.patience)
            account = await worker.stop(transport.patience)
            assert (account["received"], account["settled"], account["dead_lettered"]) == (3, 2, 1)
            envelope = letter.read()
            assert envelope is not None
            assert keys_of([envelope.operation]) == keys_of(put)[1:2]
            assert letter.reason == REJECTED

    async def test_what_is_given_back_goes_to_the_next(self, transport: Transport) -> None:
        """Given a consumer that ends with operations in hand, when another comes, then it has all of them."""
        url = transport.at(partitions=_PARTITIONS)
        put = interleaved([notes(f"instance{number}", 6) for number in range(5)])
        await transport.put(*put, url=url)
        async with transport.shared(url) as leaving:
            deliveries = await receive(leaving, len(put), transport.patience)
            assert not await leaving.settle(deliveries[:7])
            await leaving.close()
            await leaving.release(deliveries[7:])
        async with transport.shared(url) as next_one:
            got = await handle(next_one, len(put) - 7, transport.patience)
        assert by_instance(got) == by_instance(items(deliveries[7:]))

    async def test_every_partition_is_delivered(self, transport: Transport) -> None:
        """Given an operation in each partition, when one consumer is there, then it has all of them."""
        url = transport.at(partitions=_PARTITIONS)
        put = [
            operation
            for partition in range(_PARTITIONS)
            for instance in instances_in(partition, _PARTITIONS, 2)
            for operation in notes(instance, 2)
        ]
        await transport.put(*put, url=url)
        async with transport.shared(url) as queue:
            assert by_instance(await handle(queue, len(put), transport.patience)) == by_instance(put)
