"""One live connection: it never reconnects, and once it is lost it stays so.

All use of the driver's lower layer begins here: connections come from aio-pika, channels are those of aiormq
below it. aio-pika's own channels hide whether one is lost, and cost a task a message when publishing.

Here and in the modules above, what asks the broker for something raises ``BrokerError`` if that is
unavailable or refuses.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple

from aio_pika.connection import Connection
from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage
from aiormq.exceptions import ChannelInvalidStateError, ChannelLockedResource, ChannelNotFoundEntity
from pamqp import commands
from yarl import URL

from prefactor_core.transport import BrokerError
from prefactor_rabbitmq.errors import describe, reported
from prefactor_rabbitmq.wire import Wire

CLOSE_SECONDS: Final = 3.0
_GRACE: Final = 1.0
"""Seconds that the driver has to notice that its socket was cut."""
_SILENCE: Final = 1.5
"""Heartbeats without a byte from the broker after which it counts as unavailable. A live one sends at least
one a heartbeat; it gives partitions away after two."""


class QueueState(NamedTuple):
    """What the broker says of a queue."""

    exists: bool
    ready: int = 0
    """Messages that nobody has."""
    consumers: int = 0
    """Of a quorum queue, each message that somebody got and has not settled counts as one, too."""


class Link:
    """A connection and the proof that it is alive."""

    def __init__(self, name: str, heartbeat: float, timeout: float, clock: Callable[[], float]) -> None:
        self.name = name
        """What messages call the broker."""
        self.timeout = timeout
        """Seconds for one answer."""
        self.clock = clock
        self.reason: str | None = None
        """Why this process dropped the connection, if it was not the broker or the network."""
        self.watchers: set[Callable[[], None]] = set()
        """Called every second or so, and when the connection is lost."""
        self._heartbeat = heartbeat
        self._wire = Wire(clock, self._notice)
        self._ticked = clock()
        self._lost = False
        self._connection: _Connection | None = None
        self._ticking: asyncio.Task[None] | None = None

    async def open(self, url: str, purpose: str, seconds: float) -> None:
        """Connect to the driver's URL, within so many seconds; operators see the purpose as its name."""
        connection = _Connection(URL(url), self._wire, purpose)
        try:
            async with self.bounded("connecting", seconds):
                await connection.connect()
        except BaseException:
            self.drop("the connection could not be made")
            with suppress(BrokerError), reported("closing"):
                await connection.close()
            raise
        self._wire.opened()
        self._connection = connection
        self._ticked = self._wire.heard = self.clock()
        self._ticking = asyncio.create_task(self._tick(), name="prefactor-rabbitmq-tick")

    @property
    def sound(self) -> bool:
        """Whether the broker cannot have ended this connection: decided here and now.

        Once false it stays so. A process that was frozen finds out here, before it does anything else.
        """
        if self._lost:
            return False
        now = self.clock()
        stood_still, silent = now - self._ticked, now - self._wire.heard
        if stood_still > self._heartbeat:
            self.drop(f"this process stood still for {stood_still:.0f} s, longer than a heartbeat")
        elif silent > _SILENCE * self._heartbeat:
            self.drop(f"the broker has been silent for {silent:.0f} s")
        return not self._lost

    @property
    def loss(self) -> str:
        """Why the connection is lost, in words."""
        return self.reason or "the connection was lost"

    @property
    def version(self) -> tuple[int, ...]:
        """The broker's version; ``(0,)`` if it does not say."""
        properties = self._driver.server_properties
        text = str(properties.get("version", "")) if isinstance(properties, dict) else ""
        numbers = text.partition("-")[0].partition("+")[0].split(".")
        return tuple(int(part) for part in numbers if part.isdigit()) or (0,)

    async def is_blocked(self) -> bool:
        """Return whether the broker has told this connection to stop publishing."""
        try:
            async with asyncio.timeout(0.1):
                await self._driver.ready()
        except TimeoutError:
            return True
        return False

    async def channel(self, *, confirms: bool = False) -> AbstractChannel:
        """Open a channel; to be called inside ``bounded``."""
        if self._lost:
            raise ChannelInvalidStateError("the connection is lost")
        return await self._driver.channel(publisher_confirms=confirms)

    @asynccontextmanager
    async def brief_channel(self, doing: str, seconds: float | None = None) -> AsyncIterator[AbstractChannel]:
        """Open a channel for a few calls, ``bounded``: the broker closes it at the first that it refuses."""
        async with self.bounded(doing, seconds):
            channel = await self.channel()
            try:
                yield channel
            finally:
                await close_channel(channel)

    async def look(self, queue: str, doing: str) -> QueueState:
        """Return what the broker says of a queue. Changes nothing."""
        async with self.brief_channel(doing) as channel:
            return await queue_state(channel, queue)

    async def lock(self, queue: str, doing: str) -> bool:
        """Make a queue that only this connection can have; return whether no other one has it."""
        async with self.brief_channel(doing) as channel:
            try:
                await channel.queue_declare(queue, exclusive=True)
            except ChannelLockedResource:
                return False
        return True

    async def delete(self, queue: str, doing: str) -> None:
        """Delete a queue, if it is there."""
        async with self.brief_channel(doing) as channel:
            await channel.queue_delete(queue)

    @asynccontextmanager
    async def bounded(self, doing: str, seconds: float | None = None) -> AsyncIterator[None]:
        """Give the calls in the block so many seconds, or those of one answer; let only ``BrokerError`` out.

        When time is up the socket is cut. A cancellation alone would not do: the driver answers one by
        sending something, which waits for ever on a connection that the broker does not read.
        """
        limit = self.timeout if seconds is None else seconds
        timer = asyncio.get_running_loop().call_later(
            limit, self.drop, f"no answer from the broker within {limit:g} s"
        )
        try:
            with reported(f"{self.name}: {doing}", self._explain):
                async with asyncio.timeout(limit + _GRACE):
                    yield
        finally:
            timer.cancel()

    def drop(self, reason: str) -> None:
        """Drop the connection at once, and cut the socket."""
        if not self._lost:
            self.reason = reason
            self._notice()
        self._wire.cut()

    async def close(self) -> None:
        """End the connection in bounded time; with the broker's consent, if it is there to give it."""
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.wait({self._ticking})
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            with suppress(BrokerError):
                async with self.bounded("closing", CLOSE_SECONDS):
                    await connection.close()
        finally:
            self.drop("it was closed")

    @property
    def _driver(self) -> AbstractConnection:
        if self._connection is None or self._connection.transport is None:
            raise ChannelInvalidStateError("the connection is closed")
        return self._connection.transport.connection

    def _explain(self, error: BaseException) -> str:
        if self._wire.opening:
            # Where time was up, the driver only knows of a socket that was cut.
            return self._wire.why_not_opened(TimeoutError(self.reason) if self.reason else error)
        return self.reason or describe(error)

    async def _tick(self) -> None:
        pause = min(1.0, self._heartbeat / 4)
        while self.sound:
            self._ticked = self.clock()
            self._call_watchers()
            await asyncio.sleep(pause)

    def _notice(self) -> None:
        if not self._lost:
            self._lost = True
            self._call_watchers()

    def _call_watchers(self) -> None:
        for watcher in tuple(self.watchers):
            watcher()


async def queue_state(channel: AbstractChannel, queue: str) -> QueueState:
    """Return what the broker says of a queue; of one that is not there, it closes the channel."""
    try:
        declared = await channel.queue_declare(queue, passive=True)
    except ChannelNotFoundEntity:
        return QueueState(exists=False)
    return QueueState(exists=True, ready=declared.message_count or 0, consumers=declared.consumer_count or 0)


async def get_message(channel: AbstractChannel, queue: str) -> DeliveredMessage | None:
    """Take a queue's first message, ``None`` if there is none; it goes back as the channel closes."""
    message = await channel.basic_get(queue)
    return None if isinstance(message.delivery, commands.Basic.GetEmpty) else message


async def close_channel(channel: AbstractChannel) -> None:
    """Close a channel: what was delivered through it and not settled goes back to its place."""
    if not channel.is_closed:
        await channel.close(ChannelInvalidStateError("the channel was closed"))


class _Connection(Connection):
    """aio-pika's plain connection, on a socket that can be cut."""

    def __init__(self, url: URL, wire: Wire, purpose: str) -> None:
        super().__init__(url, client_properties={"connection_name": purpose})
        self.kwargs["transport_factory"] = wire

    def __del__(self) -> None:
        """Do nothing: closing from here, as the base does, starts a task that nobody owns."""
