"""The end that consumes."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from aiormq.exceptions import ChannelLockedResource, ChannelNotFoundEntity
from pamqp import commands

from prefactor_core.broker.driver import ConsumingEnd, Fleet, PartitionState
from prefactor_core.transport import process_name
from prefactor_rabbitmq.attempts import Withdrawals
from prefactor_rabbitmq.confirming import Outgoing
from prefactor_rabbitmq.connector import Connector
from prefactor_rabbitmq.fleet import Roll
from prefactor_rabbitmq.link import CLOSE_SECONDS, Link
from prefactor_rabbitmq.memory import Memory
from prefactor_rabbitmq.partition import RabbitPartition, Setting
from prefactor_rabbitmq.publishing import Outlet
from prefactor_rabbitmq.topology import Topology

logger = logging.getLogger("prefactor_rabbitmq")

_BATCH: Final = 64
"""Queues asked within one limit of time."""


class RabbitConsumingEnd(ConsumingEnd):
    """Owns partitions, each by an exclusive queue that dies with this end's connection.

    Args:
        connector: Makes the connection.
        outlet: Where dead letters, records and answers are published, through a connection of its own.
        topology: Names, and what is declared.
        clock: Steady clock, in seconds.
    """

    def __init__(
        self, connector: Connector, outlet: Outlet, topology: Topology, clock: Callable[[], float]
    ) -> None:
        self._connector = connector
        self._outlet = outlet
        self._topology = topology
        self._clock = clock
        self._memory = Memory()
        self._withdrawals = Withdrawals(topology.names, outlet)
        self._workers = Roll(topology.names.workers, "the fleet")
        self._aside = Roll(topology.names.aside, "the workers that stand aside")
        self._owned: dict[int, RabbitPartition] = {}
        self._retiring: dict[int, asyncio.Task[None]] = {}

    async def partitions(self) -> int:
        """Return the number of partitions, with everything declared; what is unsafe has been logged."""
        return await self._topology.ensure(await self._connector.link())

    async def fleet(self) -> Fleet:
        """Join the fleet, or stay in it; places in it the broker does not tell."""
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
        queue = self._topology.names.answers(address)
        if queue is not None and answers:
            await self._outlet.publish([Outgoing("", queue, body, mandatory=False) for body in answers])

    async def acquire(self, partition: int, max_items: int) -> RabbitPartition | None:  # noqa: ARG002 -- see below
        """Declare the partition's exclusive queue, which only one connection can, and begin to consume.

        How many messages are wanted does not matter: every owner takes the same number, see ``PREFETCH``.
        """
        current = self._owned.get(partition)
        if current is not None and current.held:
            return None
        while retiring := self._retiring.get(partition):
            await asyncio.wait({retiring})
        link = await self._connector.link()
        await self._topology.ensure(link)
        if await self._is_consumed(link, partition):
            return None
        setting = Setting(
            link, self._topology, self._memory, self._withdrawals, self._outlet, self._retire, self._clock
        )
        acquired = RabbitPartition(partition, setting)
        try:
            if not await self._take_lease(link, partition):
                return None
            self._owned[partition] = acquired
            async with link.bounded(f"consuming partition {partition}"):
                await self._open(acquired)
        except BaseException:
            acquired.end("it could not be acquired")
            raise
        return acquired

    async def backlog(self) -> int:
        """Return what is ready in the queues, and what is unsettled here."""
        queues = await self._ask()
        here = sum(len(partition.inbox) for partition in self._owned.values() if partition.held)
        return here + sum(queue.message_count or 0 for queue in queues if queue is not None)

    async def states(self) -> list[PartitionState]:
        """Return what is ready in each queue, and whether somebody consumes it."""
        return [
            PartitionState(
                number=number,
                backlog=(queue.message_count or 0) if queue is not None else 0,
                dead=None,
                owner=self._owner(number, queue),
            )
            for number, queue in enumerate(await self._ask())
        ]

    async def disconnect(self) -> None:
        """Give all partitions up and let go of the connections, in bounded time."""
        for partition in tuple(self._owned.values()):
            partition.end("the end is closed")
        tasks = set(self._retiring.values())
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
            await self._withdrawals.try_to_flush()
        finally:
            await self._connector.disconnect()
            await self._outlet.disconnect()
        if tasks:
            await asyncio.wait(tasks)  # without a connection they end at once

    async def _is_consumed(self, link: Link, partition: int) -> bool:
        """Look before trying the lease: the broker logs an error for each that it has to refuse."""
        async with link.bounded(f"looking at partition {partition}"):
            (queue,) = await self._ask_some(link, [partition])
        return queue is not None and bool(queue.consumer_count)

    async def _take_lease(self, link: Link, partition: int) -> bool:
        async with link.bounded(f"acquiring partition {partition}"):
            try:
                async with link.brief_channel() as channel:
                    await channel.queue_declare(self._topology.names.owner(partition), exclusive=True)
            except ChannelLockedResource:
                return False
        return True

    async def _open(self, partition: RabbitPartition) -> None:
        try:
            await partition.open()
        except ChannelNotFoundEntity:
            self._topology.invalidate()
            raise

    def _retire(self, partition: RabbitPartition) -> "asyncio.Task[None]":
        """Hand a partition over in the background; an acquire of it waits until that is done."""
        task = asyncio.create_task(self._hand_over(partition), name="prefactor-rabbitmq-hand-over")
        self._retiring[partition.number] = task
        return task

    async def _hand_over(self, partition: RabbitPartition) -> None:
        number = partition.number
        try:
            await partition.hand_over()
        finally:
            if self._owned.get(number) is partition:
                del self._owned[number]
            if self._retiring.get(number) is asyncio.current_task():
                del self._retiring[number]

    def _owner(self, number: int, queue: commands.Queue.DeclareOk | None) -> str | None:
        partition = self._owned.get(number)
        if partition is not None and partition.held:
            return process_name()
        return "" if queue is not None and queue.consumer_count else None

    async def _ask(self) -> list[commands.Queue.DeclareOk | None]:
        """Return what the broker says of each partition's queue; ``None`` for one that is not there."""
        link = await self._connector.link()
        count = await self._topology.recorded(link) or 0
        answers: list[commands.Queue.DeclareOk | None] = []
        while len(answers) < count:
            numbers = range(len(answers), min(len(answers) + _BATCH, count))
            async with link.bounded("counting"):
                answers += await self._ask_some(link, numbers)
        return answers

    async def _ask_some(self, link: Link, numbers: Sequence[int]) -> list[commands.Queue.DeclareOk | None]:
        """Ask for queues, up to the first that is missing: the broker closes the channel there."""
        answers: list[commands.Queue.DeclareOk | None] = []
        with suppress(ChannelNotFoundEntity):
            async with link.brief_channel() as channel:
                for number in numbers:
                    queue = self._topology.names.partition(number)
                    answers.append(await channel.queue_declare(queue, passive=True))
        if len(answers) < len(numbers):
            self._topology.invalidate()
            answers.append(None)
        return answers
