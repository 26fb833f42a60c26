"""RabbitMQ as a broker: what makes its ends."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from prefactor_core.transport import Broker, ConsumingEnd, DeadLetterEnd, PublishingEnd
from prefactor_rabbitmq.checks import problems
from prefactor_rabbitmq.connector import Connector, steady_clock
from prefactor_rabbitmq.consuming import RabbitConsumingEnd
from prefactor_rabbitmq.dead_letters import RabbitDeadLetterEnd
from prefactor_rabbitmq.link import Link
from prefactor_rabbitmq.names import Names
from prefactor_rabbitmq.options import Address
from prefactor_rabbitmq.publishing import Outlet, RabbitPublishingEnd
from prefactor_rabbitmq.topology import Topology

CLEARING_SECONDS: Final = 60.0
"""For all queues of a prefix together: deleting a quorum queue takes a while, more so in a cluster."""


class RabbitBroker(Broker):
    """A RabbitMQ server or cluster.

    Args:
        url: ``amqp://user:password@host:port,host:port/vhost?prefix=...``.
        clock: Steady clock, in seconds.

    Raises:
        TransportError: The URL is wrong.
    """

    def __init__(self, url: str, clock: Callable[[], float] = steady_clock) -> None:
        self._address, self._options = Address.parse(url)
        self._names = Names(self._options.prefix)
        self._clock = clock
        self.name = f"{self._address.label} ({self._options.prefix})"

    def __repr__(self) -> str:
        return f"RabbitBroker({self.name!r})"

    def publishing(self) -> PublishingEnd:
        """Return an end with one connection."""
        outlet = Outlet(self._connector("publishing"), self._topology())
        return RabbitPublishingEnd(outlet, self._names.exchange)

    def consuming(self) -> ConsumingEnd:
        """Return an end with one connection to consume and one for dead letters: writers may be blocked."""
        topology = self._topology()
        outlet = Outlet(self._connector("dead letters of"), topology)
        return RabbitConsumingEnd(self._connector("consuming"), outlet, topology)

    def dead_letters(self) -> DeadLetterEnd:
        """Return an end with one connection."""
        return RabbitDeadLetterEnd(self._connector("dead letters for"), self._names)

    async def check(self) -> list[str]:
        """Connect, look at what is there, and try to publish what has no queue. Makes nothing."""
        async with self._link("checking") as link:
            return await problems(link, self._topology())

    async def clear(self) -> None:
        """Delete every queue and the exchange.

        What is exclusive to a connection goes with that: leases, the lock of who reads the dead letters, and
        the queues of answers. Nobody else may delete those.
        """
        names = self._names
        async with self._link("clearing") as link:
            count = await self._topology().recorded(link) or 0
            async with link.brief_channel("deleting the queues", CLEARING_SECONDS) as channel:
                for number in range(count):
                    for queue in (names.attempts(number), names.handover(number), names.partition(number)):
                        await channel.queue_delete(queue)
                for queue in (names.dead, names.workers, names.aside, names.record):
                    await channel.queue_delete(queue)
                await channel.exchange_delete(names.exchange)

    @asynccontextmanager
    async def _link(self, purpose: str) -> AsyncIterator[Link]:
        connector = self._connector(purpose)
        try:
            yield await connector.link()
        finally:
            await connector.disconnect()

    def _topology(self) -> Topology:
        return Topology(self._names, self._options.partitions)

    def _connector(self, purpose: str) -> Connector:
        return Connector(self._address, self._options, self.name, purpose, self._clock)
