"""Showing servers that this process lives: on each, one connection that subscribes to a channel of its own.

A server knows within milliseconds that a process was killed, and a process that is only frozen stays
subscribed. Nothing is ever published there.
"""

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from redis.exceptions import ResponseError

from prefactor_core.transport import BrokerError, RetryPolicy
from prefactor_redis.errors import DRIVER_ERRORS, mapped
from prefactor_redis.link import Link
from prefactor_redis.servers import Links
from prefactor_redis.target import Address

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

logger = logging.getLogger("prefactor_redis")

_RETRY: Final = RetryPolicy(base=0.1, cap=2.0)
_ABANDONED_SECONDS: Final = 300.0
"""Without a connection; a node that left its cluster never comes back. A later use subscribes anew."""
_CLOSING_SECONDS: Final = 2.0


class Presence:
    """Keeps one process's channel subscribed, on each server where that was asked for.

    Args:
        links: Know how to reach the servers.
        channel: Which one.
        interval: Seconds of silence after which a server is asked for a sign, and after as many more doubted.
        patience: Seconds for connecting and subscribing.
    """

    def __init__(self, links: Links, channel: str, interval: float, patience: float) -> None:
        self._links = links
        self._channel = channel
        self._interval = interval
        self._patience = patience
        self._subscriptions: dict[Address, _Subscription] = {}

    async def ensure(self, address: Address) -> bool:
        """Be subscribed on a server from now on; return whether the server permits that."""
        for known in [known for known, one in self._subscriptions.items() if one.abandoned]:
            if (one := self._subscriptions.pop(known, None)) is not None:
                await one.close()
        subscription = self._subscriptions.get(address)
        if subscription is None:
            link = self._links.to(address)
            subscription = _Subscription(link, self._channel, self._interval, self._patience)
            self._subscriptions[address] = subscription
        try:
            return await subscription.ensure()
        except BrokerError:
            self._links.servers.doubt()
            raise

    async def close(self) -> None:
        """End all subscriptions; a later use makes new ones."""
        ending, self._subscriptions = self._subscriptions, {}
        await asyncio.gather(*(one.close() for one in ending.values()))


class _Subscription:
    """The channel on one server."""

    def __init__(self, link: Link, channel: str, interval: float, patience: float) -> None:
        self._link = link
        self._channel = channel
        self._interval = interval
        self._patience = patience
        self._lock = asyncio.Lock()
        self._connection: AbstractConnection | None = None
        self._silent: AbstractConnection | None = None
        self._refused = False
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    @property
    def abandoned(self) -> bool:
        """Whether nothing watches it any more: the server was unavailable for too long."""
        return not self._refused and self._task is not None and self._task.done()

    async def ensure(self) -> bool:
        """Subscribe, unless that is done; return whether the server permits it."""
        with mapped(self._link.name):
            async with asyncio.timeout(self._patience), self._lock:
                self._require_open()
                if self._connection is None and not self._refused:
                    await self._subscribe()
        if self._task is None and not self._refused:
            self._task = asyncio.create_task(self._watch(), name="prefactor-redis-presence")
            self._task.add_done_callback(_say_what_ended)
        return not self._refused

    async def close(self) -> None:
        """End it, and an attempt to subscribe."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        with suppress(*DRIVER_ERRORS):
            async with asyncio.timeout(_CLOSING_SECONDS):
                for connection in (self._connection, self._silent):
                    if connection is not None:
                        await connection.disconnect()

    async def _subscribe(self) -> None:
        connection = self._link.apart()
        try:
            await connection.send_packed_command(connection.pack_command("SUBSCRIBE", self._channel))
            try:
                await connection.read_response()
            except ResponseError as error:
                self._refused = True
                logger.warning(
                    "%s refuses this user the channel %s: a worker that is only cut off counts as crashed; "
                    "permit it (ACL SETUSER, see prefactor-worker check): %s",
                    self._link.name,
                    self._channel,
                    error,
                )
            self._require_open()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        if self._refused:
            await connection.disconnect(nowait=True)
        else:
            self._connection = connection
        # Not before: for a server that was only slow, this process must not have been gone in between.
        silent, self._silent = self._silent, None
        if silent is not None:
            await silent.disconnect(nowait=True)

    def _require_open(self) -> None:
        if self._closed:
            raise BrokerError(f"{self._link.name}: its connections were closed")

    async def _watch(self) -> None:
        clock = asyncio.get_running_loop().time
        failures, since = 0, clock()
        while clock() - since < _ABANDONED_SECONDS:
            began = clock()
            try:
                if not await self.ensure():
                    return
                await self._listen()
                since = clock()
            except BrokerError as error:
                logger.debug("not subscribed to %s: %s", self._channel, error)
            # At once, unless the server stays unavailable, or ends whatever is subscribed.
            failures = 0 if since - began > self._interval else failures + 1
            if failures > 1:
                await asyncio.sleep(_RETRY.delay(failures))

    async def _listen(self) -> None:
        """Return once the subscription is lost, or may be."""
        connection = self._connection
        asked = False
        while connection is not None:
            try:
                reply = await connection.read_response(timeout=self._interval)
                if reply is None and not asked:
                    async with asyncio.timeout(self._interval):
                        await connection.send_packed_command(connection.pack_command("PING"))
                elif reply is None:
                    logger.debug("%s is silent; subscribing to %s again", self._link.name, self._channel)
                    self._connection, self._silent = None, connection
                    return
                asked = reply is None
            except ResponseError:
                asked = False  # it may not be asked, and answers
            except DRIVER_ERRORS as error:
                logger.debug("%s: the subscription to %s was lost: %s", self._link.name, self._channel, error)
                self._connection = None
                await connection.disconnect(nowait=True)
                return


def _say_what_ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("showing that this worker lives failed; it may count as crashed", exc_info=error)
