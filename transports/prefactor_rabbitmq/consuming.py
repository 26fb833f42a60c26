"""The end that consumes."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from prefactor_core.transport import ConsumingEnd, Fleet, PartitionState, process_name
from prefactor_rabbitmq.attempts import Withdrawals
from prefactor_rabbitmq.confirming import Outgoing
from prefactor_rabbitmq.connector import Connector
from prefactor_rabbitmq.fleet import Membership
from prefactor_rabbitmq.inbox import Memory
from prefactor_rabbitmq.link import CLOSE_SECONDS, QueueState, queue_state
from prefactor_rabbitmq.names import is_address
from prefactor_rabbitmq.partition import RabbitPartition
from prefactor_rabbitmq.publishing import Outlet
from prefactor_rabbitmq.topology import Topology

logger = logging.getLogger("prefactor_rabbitmq")

_BATCH: Final = 64
"""Queues asked within one limit of time."""


class RabbitConsumingEnd(ConsumingEnd):
    """Owns partitions, each by an exclusive queue that dies with this end's connection.

    Dead letters, notes, attempts and answers are published through the outlet's connection.
    """

    def __init__(self, connector: Connector, outlet: Outlet, topology: Topology) -> None:
        self._connector = connector
        self._outlet = outlet
        self._topology = topology
        self._memory = Memory()
        self._withdrawals = Withdrawals(topology.names, outlet)
        self._workers = Membership(topology.names.workers, "the fleet")
        self._aside = Membership(topology.names.aside, "the workers that stand aside")
        self._owned: dict[int, RabbitPartition] = {}  # also those that are being handed over

    async def partitions(self) -> int:
        """Return the number of partitions, with everything declared; what is unsafe has been logged."""
        return await self._topology.ensure(await self._connector.link())

    async def fleet(self) -> Fleet:
        """Join the fleet, or stay in it; the broker tells no ranks."""
        link = await self._connector.link()
        await self._aside.leave()
        size = await self._workers.size(link)
        await self._withdrawals.try_to_flush()
        return Fleet(size)

    async def stand_aside(self) -> None:
        """Leave the fleet's queue, and consume from the one of those that stand aside."""
        link = await self._connector.link()
        await self._workers.leave()
        await self._aside.size(link)

    async def standing_aside(self) -> int:
        """Return how many consume from the queue of those that stand aside."""
        return await self._aside.look(await self._connector.link())

    async def answer(self, address: str, answers: Sequence[bytes]) -> None:
        """Publish answers to the queue of an address; where there is none, the broker drops them.

        An address that ``open_answers`` cannot have returned is nobody's: it names no queue.
        """
        if answers and is_address(address):
            queue = self._topology.names.answers(address)
            await self._outlet.publish([Outgoing("", queue, body, mandatory=False) for body in answers])

    async def acquire(self, partition: int, max_items: int) -> RabbitPartition | None:  # noqa: ARG002 -- see below
        """Declare the partition's exclusive queue, which only one connection can, and begin to consume.

        How many messages are wanted does not matter: every owner takes the same number, see ``PREFETCH``.
        """
        current = self._owned.get(partition)
        if current is not None:
            if current.held:
                return None
            await current.release()
        link = await self._connector.link()
        await self._topology.ensure(link)
        names = self._topology.names
        # Before the lease is tried: the broker logs an error for each that it has to refuse.
        if (await link.look(names.partition(partition), f"looking at partition {partition}")).consumers:
            return None
        acquired = RabbitPartition(
            partition, link, self._topology, self._memory, self._withdrawals, self._outlet, self._forget
        )
        self._owned[partition] = acquired
        try:
            if not await link.lock(names.owner(partition), f"acquiring partition {partition}"):
                self._forget(acquired)
                return None
            async with link.bounded(f"consuming partition {partition}"):
                await acquired.open()
        except BaseException:
            acquired.lose("it could not be acquired")
            raise
        return acquired

    async def backlog(self) -> int:
        """Return what is ready in the queues, and what is unsettled here."""
        ready = sum(queue.ready for queue in await self._look())
        return ready + sum(len(owned.inbox) for owned in self._owned.values() if owned.held)

    async def states(self) -> list[PartitionState]:
        """Return what is ready in each queue, and whether somebody consumes it."""
        return [
            PartitionState(number, backlog=queue.ready, dead=None, owner=self._owner(number, queue))
            for number, queue in enumerate(await self._look())
        ]

    async def disconnect(self) -> None:
        """Release all partitions and close the connections, in bounded time."""
        for partition in tuple(self._owned.values()):
            partition.lose("the end is closed")
        tasks = {owned.handing_over for owned in self._owned.values() if owned.handing_over is not None}
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
            await self._withdrawals.try_to_flush()
        finally:
            await self._connector.disconnect()
            await self._outlet.disconnect()
        if tasks:
            await asyncio.wait(tasks)  # without a connection they end at once

    def _forget(self, partition: RabbitPartition) -> None:
        if self._owned.get(partition.number) is partition:
            del self._owned[partition.number]

    def _owner(self, number: int, queue: QueueState) -> str | None:
        owned = self._owned.get(number)
        if owned is not None and owned.held:
            return process_name()
        return "" if queue.consumers else None

    async def _look(self) -> list[QueueState]:
        """Return what the broker says of each partition's queue."""
        link = await self._connector.link()
        count = await self._topology.recorded(link) or 0
        queues: list[QueueState] = []
        while len(queues) < count:
            async with link.brief_channel("counting") as channel:
                for number in range(len(queues), min(len(queues) + _BATCH, count)):
                    queues.append(await queue_state(channel, self._topology.names.partition(number)))
                    if not queues[-1].exists:  # for that the broker has closed the channel
                        self._topology.invalidate()
                        break
        return queues
