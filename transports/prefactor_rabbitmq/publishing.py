"""The end that publishes."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress

from aiormq.exceptions import ChannelClosed, ChannelNotFoundEntity, DeliveryError, PublishError

from prefactor_core.transport import BrokerError, PublishingEnd
from prefactor_rabbitmq.confirming import ConfirmingChannel, Confirms, Outgoing
from prefactor_rabbitmq.connector import Connector
from prefactor_rabbitmq.errors import describe
from prefactor_rabbitmq.link import Link
from prefactor_rabbitmq.topology import Topology

logger = logging.getLogger("prefactor_rabbitmq")


class Outlet:
    """A connection and a channel of its own to publish through, for agents and for dead letters.

    What the topology has is declared before anything is published.
    """

    def __init__(self, connector: Connector, topology: Topology) -> None:
        self._connector = connector
        self._topology = topology
        self._opening = asyncio.Lock()
        self._channel: ConfirmingChannel | None = None
        self._link: Link | None = None

    async def count(self) -> int:
        """Return the number of partitions, with everything declared."""
        return await self._topology.ensure(await self._connector.link())

    async def publish(self, batch: Sequence[Outgoing]) -> None:
        """Publish, and return when everything is confirmed.

        Raises:
            BrokerError: Something is not confirmed; its ``confirmed`` says how many at the head are.
        """
        link, channel = await self._open()
        confirms = Confirms()
        try:
            async with link.bounded("publishing"):
                await channel.publish(batch, confirms)
            in_time = await confirms.wait(link.timeout)
            confirmed, error = confirms.head, confirms.error
        except BrokerError as failure:
            failure.confirmed = confirms.head
            raise
        finally:
            channel.done_with(confirms)
        if not in_time:
            # A broker short of memory or disk stops reading, and would read all of this once it recovers.
            link.drop(f"no confirm from the broker within {link.timeout:g} s")
        if confirmed < len(batch):
            if isinstance(error, DeliveryError) and not isinstance(error, PublishError):
                await self._replace(link, channel)
            raise BrokerError(f"{link.name}: publishing: {self._explain(link, error)}", confirmed)

    async def disconnect(self) -> None:
        """Close the connection, in bounded time."""
        self._channel = None
        await self._connector.disconnect()

    async def _open(self) -> tuple[Link, ConfirmingChannel]:
        link = await self._connector.link()
        async with self._opening:
            await self._topology.ensure(link)
            if self._channel is None or self._channel.closed or self._link is not link:
                async with link.bounded("opening a channel"):
                    self._channel, self._link = await ConfirmingChannel.open(link), link
            return link, self._channel

    async def _replace(self, link: Link, channel: ConfirmingChannel) -> None:
        """Close a channel on which the broker has refused a message.

        Once the leader of a queue was lost, a channel that had published to it is refused for ever.
        """
        if self._channel is channel:
            self._channel = None
        with suppress(BrokerError):
            async with link.bounded("closing a channel"):
                await channel.close()

    def _explain(self, link: Link, error: BaseException | None) -> str:
        if isinstance(error, PublishError | ChannelNotFoundEntity) and self._topology.invalidate():
            logger.error("%s: a queue or the exchange is gone with what it held; making it again", link.name)
        if isinstance(error, DeliveryError | ChannelClosed):
            return describe(error)
        return link.loss


class RabbitPublishingEnd(PublishingEnd):
    """Publishes to partitions."""

    def __init__(self, outlet: Outlet, exchange: str) -> None:
        self._outlet = outlet
        self._exchange = exchange

    async def partitions(self) -> int:
        """Return the number of partitions, with everything declared."""
        return await self._outlet.count()

    async def publish(self, partition: int, batch: Sequence[bytes]) -> None:
        """Publish in one piece; every message must find its queue."""
        key = str(partition)
        await self._outlet.publish([Outgoing(self._exchange, key, data) for data in batch])

    async def disconnect(self) -> None:
        """Close the connection, in bounded time."""
        await self._outlet.disconnect()
