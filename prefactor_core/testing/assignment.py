"""The contract, part 6: a fleet shares the partitions fairly, and leaves nothing behind."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.exceptions import QueueClosedError
from prefactor_core.testing.base import Contract
from prefactor_core.testing.operations import (
    by_instance,
    instances_in,
    interleaved,
    key_of,
    keys_of,
    life,
    note,
    notes,
)
from prefactor_core.testing.receiving import PLENTY, eventually, handle, receive
from prefactor_core.testing.transport import Transport

if TYPE_CHECKING:
    from prefactor_core.operations import Operation

_PARTITIONS = 4


class _Log:
    """What the consumers of a test have handled."""

    def __init__(self) -> None:
        self.settled: list[tuple[str, Operation]] = []

    async def counts(self, how_many: int, within: float) -> None:
        """Wait until so many are settled, and no more."""

        async def count() -> int:
            return len(self.settled)

        await eventually(count, lambda settled: settled == how_many, within)

    @asynccontextmanager
    async def consumer(self, transport: Transport, url: str, name: str) -> AsyncIterator[BrokerQueue]:
        """Run a consumer that settles everything, and leaves cleanly."""
        async with transport.shared(url) as queue:
            working = asyncio.create_task(self._work(queue, name))
            try:
                yield queue
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


class SharingContract(Contract):
    """Consumers come and go: each has its share, every operation one owner."""

    async def test_shares_are_fair(self, transport: Transport) -> None:
        """Given one consumer, when another comes and goes, then the shares are 4, 2 and 2, and 4 again."""
        url = transport.at(partitions=_PARTITIONS)
        log = _Log()
        async with transport.shared(url) as agent, log.consumer(transport, url, "a"):
            await self._shares_become(agent, log, {"a": 4}, transport.patience)
            async with log.consumer(transport, url, "b"):
                await self._shares_become(agent, log, {"a": 2, "b": 2}, transport.patience)
            await self._shares_become(agent, log, {"a": 4}, transport.patience)
        settled = keys_of(operation for _, operation in log.settled)
        assert len(set(settled)) == len(settled), "nothing is settled by two"
        for keys in by_instance(operation for _, operation in log.settled).values():
            assert keys == sorted(keys)

    async def _shares_become(
        self, agent: BrokerQueue, log: _Log, wanted: dict[str, int], within: float
    ) -> None:
        """Send a probe to each partition, over and over, until the consumers have their shares."""
        names = [instances_in(partition, _PARTITIONS, 1)[0] for partition in range(_PARTITIONS)]

        async def probe() -> Counter[str]:
            before, number = len(log.settled), len(log.settled)
            for name in names:
                await agent.put(note(name, number))

            await log.counts(before + _PARTITIONS, within)
            return Counter(name for name, _ in log.settled[before:])

        await eventually(probe, lambda shares: shares == wanted, within)

    async def test_every_delivery_once_while_its_owner_lives(self, transport: Transport) -> None:
        """Given consumers that come and go, when all is done, then each is settled once, in order."""
        url = transport.at(partitions=_PARTITIONS)
        log = _Log()
        lives = [life(f"instance{number}", spans=10) for number in range(30)]
        put = interleaved(lives)
        async with transport.shared(url) as agent, log.consumer(transport, url, "a"):
            for operation in put[: len(put) // 2]:
                await agent.put(operation)
            async with log.consumer(transport, url, "b"):
                for operation in put[len(put) // 2 :]:
                    await agent.put(operation)
                assert await agent.flush(transport.patience)
            await log.counts(len(put), transport.patience)
        assert sorted(keys_of(one for _, one in log.settled)) == sorted(keys_of(put))
        assert by_instance(one for _, one in log.settled) == by_instance(put)

    async def test_standing_aside(self, transport: Transport) -> None:
        """Given two consumers, when one stands aside, then the fleet is the other alone until it is back."""
        url = transport.at(partitions=_PARTITIONS)
        async with transport.shared(url) as queue:
            one, other, observer = (queue.broker.consuming() for _ in range(3))
            try:
                for end in (one, other):
                    await end.partitions()
                    await end.fleet()
                await eventually(other.fleet, lambda fleet: fleet.size == 2, transport.patience)
                for _ in range(2):
                    await one.stand_aside()
                await eventually(other.fleet, lambda fleet: fleet.size == 1, transport.patience)
                await eventually(observer.standing_aside, lambda aside: aside == 1, transport.patience)
                await one.fleet()
                await eventually(other.fleet, lambda fleet: fleet.size == 2, transport.patience)
                await eventually(observer.standing_aside, lambda aside: aside == 0, transport.patience)
                await one.stand_aside()
            finally:
                for end in (one, other, observer):
                    await end.disconnect()
        assert transport.leftovers is not None
        await eventually(
            transport.leftovers, lambda names: set(names) <= set(transport.keeps), transport.patience
        )

    async def test_two_agents(self, transport: Transport) -> None:
        """Given two agents that put at the same time, when all is received, then each kept its order."""
        url = transport.at(partitions=_PARTITIONS)
        async with transport.shared(url) as one, transport.shared(url) as other:
            for number in range(100):
                await one.put(note("instance-of-one", number))
                await other.put(note("instance-of-other", number))
            assert await one.flush(transport.patience)
            assert await other.flush(transport.patience)
        async with transport.shared(url) as queue:
            got = by_instance(await handle(queue, 200, transport.patience))
        assert all(keys == sorted(keys) and len(keys) == 100 for keys in got.values())

    async def test_an_operation_outlives_its_agent(self, transport: Transport) -> None:
        """Given operations of an agent that has ended, when a consumer comes later, then it has them."""
        put = notes("instance", 5)
        await transport.put(*put)
        async with transport.shared() as queue:
            assert await queue.depth() == 5
            assert keys_of(await handle(queue, 5, transport.patience)) == keys_of(put)

    async def test_the_states_of_partitions(self, transport: Transport) -> None:
        """Given operations in one partition, when an operator looks, then they are seen there."""
        url = transport.at(partitions=2)
        (instance,) = instances_in(1, 2, 1)
        await transport.put(*notes(instance, 3), url=url)
        async with transport.shared(url) as queue:
            end = queue.broker.consuming()

            async def waiting() -> list[tuple[int, int]]:
                return [(state.number, state.backlog) for state in await end.states()]

            await eventually(waiting, lambda found: found == [(0, 0), (1, 3)], transport.patience)
            assert [state.owner for state in await end.states()] == [None, None]
            held = await receive(queue, 3, transport.patience)
            assert (await end.states())[1].owner is not None
            await queue.settle(held)
            await end.disconnect()

    async def test_nothing_is_left(self, transport: Transport) -> None:
        """Given everything drained, when all have ended cleanly, then only the record is left."""
        assert transport.leftovers is not None, "a transport says what it leaves on its broker"
        url = transport.at(partitions=_PARTITIONS)
        put = interleaved([life(f"instance{number}", spans=2) for number in range(12)])
        async with transport.shared(url) as queue:
            for operation in put:
                await queue.put(operation)
            assert [key_of(one) for one in await handle(queue, len(put), transport.patience)]
        left = transport.leftovers
        await eventually(left, lambda names: set(names) <= set(transport.keeps), transport.patience)
