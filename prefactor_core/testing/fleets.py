"""What becomes of partitions as consumers come, go, die and freeze: fair assignments, one owner at a time."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prefactor_core.testing.dead_letters import listed
from prefactor_core.testing.operations import (
    by_instance,
    instances_in,
    interleaved,
    keys_of,
    life,
    note,
    notes,
)
from prefactor_core.testing.processes import worker
from prefactor_core.testing.receiving import PLENTY, drained, eventually, handle, items, receive
from prefactor_core.testing.transport import PARTITIONS, Contract, Transport
from prefactor_core.transport import BrokerQueue, Operation, QueueClosedError


class _Log:
    """What the consumers of a test have handled."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.settled: list[tuple[str, Operation]] = []

    @property
    def operations(self) -> list[Operation]:
        """What was settled, by whomever."""
        return [operation for _, operation in self.settled]

    async def counts(self, how_many: int) -> None:
        """Wait until so many are settled, and no more."""

        async def count() -> int:
            return len(self.settled)

        await eventually(count, lambda settled: settled == how_many, self._transport.patience)

    async def assignments_become(self, agent: BrokerQueue, wanted: dict[str, int]) -> None:
        """Send a probe to each partition, over and over, until the consumers own so many of them."""
        names = [instances_in(partition, PARTITIONS, 1)[0] for partition in range(PARTITIONS)]

        async def probe() -> Counter[str]:
            before = len(self.settled)
            for name in names:
                await agent.put(note(name, before))
            await self.counts(before + PARTITIONS)
            return Counter(name for name, _ in self.settled[before:])

        await eventually(probe, lambda found: found == wanted, self._transport.patience)

    @asynccontextmanager
    async def consumer(self, name: str) -> AsyncIterator[None]:
        """Run a consumer that settles everything, and ends cleanly."""
        async with self._transport.shared() as queue:
            working = asyncio.create_task(self._work(queue, name))
            try:
                yield
            finally:
                await queue.close()
                await working

    async def _work(self, queue: BrokerQueue, name: str) -> None:
        while True:
            try:
                deliveries = await queue.receive(50, PLENTY)
            except QueueClosedError:
                return
            refused = await queue.settle(deliveries)
            self.settled += [(name, one.item) for one in deliveries if one not in refused]


class FleetContract(Contract):
    """Assignments are fair; the next owner goes on where the effects end; a past one can do nothing."""

    async def test_a_killed_consumer_is_succeeded(self, several: Transport) -> None:
        """Given a consumer killed in the middle, when another comes, then it begins with the unsettled."""
        put = interleaved([notes(f"instance{number}", 8) for number in range(6)])
        await several.put(*put)
        async with worker(several.url, handle=17) as dying, several.shared() as successor:
            await dying.until(lambda it: len(it.keys("handling")) == 18, several.patience)
            handled, held = dying.keys("handled"), dying.keys("handling")[-1]
            await dying.kill()
            deliveries = await receive(successor, len(put) - 17, several.patience)
            rest = [operation for operation in put if operation.idempotency_key not in handled]
            assert by_instance(items(deliveries)) == by_instance(rest)
            (again,) = [one for one in deliveries if one.item.idempotency_key == held]
            assert again.maybe_sent, "it is not known what the dead one did with it"
            assert not await successor.settle(deliveries)
            await drained(successor, several.patience)

    async def test_a_frozen_consumer_is_succeeded(self, single: Transport) -> None:
        """Given a consumer that was frozen and succeeded, when it wakes, then it can do nothing any more.

        It is frozen with two operations, one to be settled and one to be dead-lettered, with more of them
        received and an idle hand for those, and while it waits for what comes next.
        """
        first, second = [notes(f"instance{number}", 5) for number in range(2)]
        await single.put(*first, *second)
        frozen_one = worker(single.url, handle=0, workers=3, reject=keys_of(second)[:1])
        async with frozen_one as frozen, single.shared() as successor:
            await frozen.until(lambda it: len(it.keys("handling")) == 2, single.patience)
            frozen.process.send_signal(signal.SIGSTOP)
            more = [*notes("instance0", 5, first=5), *notes("instance1", 5, first=5)]
            await single.put(*more)
            everything = [*first, *second, *more]
            deliveries = await receive(successor, len(everything), single.patience)
            assert by_instance(items(deliveries)) == by_instance(everything)
            assert not await successor.settle(deliveries[:2])
            frozen.process.send_signal(signal.SIGCONT)
            frozen.tell("go")
            await frozen.until(lambda it: len(it.keys("handled")) == 2, single.patience)
            assert not await successor.settle(deliveries[2:]), "what it does is no concern of the owner's"
            account = await frozen.stop(single.patience)
            assert len(frozen.keys("handling")) == 2, "it was served nothing ahead of its successor"
            assert (account["settled"], account["dead_lettered"], account["prefetched"]) == (0, 0, 0)
            assert account["released"] == account["received"] >= 2
            assert await listed(successor) == []
            await drained(successor, single.patience)

    async def test_assignments_are_fair(self, several: Transport) -> None:
        """Given one consumer, when another comes and goes, then they own 4, 2 and 2, and 4 again."""
        log = _Log(several)
        async with several.shared() as agent, log.consumer("a"):
            await log.assignments_become(agent, {"a": 4})
            async with log.consumer("b"):
                await log.assignments_become(agent, {"a": 2, "b": 2})
            await log.assignments_become(agent, {"a": 4})
        settled = keys_of(log.operations)
        assert len(set(settled)) == len(settled), "nothing is settled by two"
        for keys in by_instance(log.operations).values():
            assert keys == sorted(keys)

    async def test_every_delivery_once_while_its_owner_lives(self, several: Transport) -> None:
        """Given consumers that come and go, when all is done, then each is settled once, in order."""
        log = _Log(several)
        put = interleaved([life(f"instance{number}", spans=10) for number in range(30)])
        half = len(put) // 2
        async with several.shared(*put[:half]) as agent, log.consumer("a"):
            async with log.consumer("b"):
                for operation in put[half:]:
                    await agent.put(operation)
                assert await agent.flush(several.patience)
            await log.counts(len(put))
        assert sorted(keys_of(log.operations)) == sorted(keys_of(put))
        assert by_instance(log.operations) == by_instance(put)

    async def test_standing_aside(self, several: Transport) -> None:
        """Given two consumers, when one stands aside, then the fleet is the other alone until it is back."""
        async with (
            several.shared() as queue,
            queue.broker.consuming() as one,
            queue.broker.consuming() as other,
            queue.broker.consuming() as observer,
        ):

            async def become(size: int, aside: int) -> None:
                await eventually(other.fleet, lambda fleet: fleet.size == size, several.patience)
                await eventually(observer.standing_aside, lambda found: found == aside, several.patience)

            for end in (one, other):
                await end.partitions()
                await end.fleet()
            await become(2, 0)
            for _ in range(2):
                await one.stand_aside()
            await become(1, 1)
            await one.fleet()
            await become(2, 0)
            await one.stand_aside()
        await several.leaves_nothing()

    async def test_the_states_of_partitions(self, several: Transport) -> None:
        """Given operations in one partition, when an operator looks, then they are seen there."""
        (instance,) = instances_in(1, PARTITIONS, 1)
        await several.put(*notes(instance, 3))
        async with several.shared() as queue, queue.broker.consuming() as end:

            async def backlogs() -> list[tuple[int, int]]:
                return [(state.number, state.backlog) for state in await end.states()]

            expected = [(0, 0), (1, 3), (2, 0), (3, 0)]
            await eventually(backlogs, lambda found: found == expected, several.patience)
            assert [state.owner for state in await end.states()] == [None] * PARTITIONS
            held = await receive(queue, 3, several.patience)
            assert (await end.states())[1].owner is not None
            await queue.settle(held)

    async def test_nothing_is_left(self, several: Transport) -> None:
        """Given everything drained, when all have ended cleanly, then only the record is left."""
        put = interleaved([life(f"instance{number}", spans=2) for number in range(12)])
        async with several.shared(*put) as queue:
            assert len(await handle(queue, len(put), several.patience)) == len(put)
        await several.leaves_nothing()
