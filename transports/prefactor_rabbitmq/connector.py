"""Keeps one connection: makes it when it is needed, replaces it when it was lost."""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Final

from prefactor_core.transport import BrokerError, process_name
from prefactor_rabbitmq.link import Link
from prefactor_rabbitmq.options import Address, RabbitOptions

logger = logging.getLogger("prefactor_rabbitmq")

_LEAST_SECONDS: Final = 2.0
"""Seconds that a host has at least to answer, where there are many."""


def steady_clock() -> float:
    """Return seconds that go on while the machine sleeps, where the system can count those."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Connector:
    """Connects to the first host that answers, in any order.

    There is no loop that reconnects by itself: who needs a connection asks for it, and hears why there is
    none. Operators see the purpose before the process's name.
    """

    def __init__(
        self, address: Address, options: RabbitOptions, name: str, purpose: str, clock: Callable[[], float]
    ) -> None:
        self.name = name
        """What messages call the broker."""
        self._address = address
        self._options = options
        self._purpose = purpose
        self._clock = clock
        self._link: Link | None = None
        self._attempt: asyncio.Task[Link] | None = None

    async def link(self) -> Link:
        """Return the live connection, or a new one; all who wait for one share its attempt.

        Raises:
            BrokerError: No host lets us in, or ``disconnect`` was called meanwhile.
        """
        if self._link is not None and self._link.sound:
            return self._link
        attempt = self._attempt
        if attempt is None:
            attempt = self._attempt = asyncio.create_task(self._renew(), name="prefactor-rabbitmq-connect")
            attempt.add_done_callback(self._on_attempt_done)
        await asyncio.wait({attempt})
        if attempt.cancelled():
            raise BrokerError(f"{self.name}: the connection was closed")
        error = attempt.exception()
        if isinstance(error, BrokerError):
            raise BrokerError(str(error))  # one for each who waited
        return attempt.result()

    async def disconnect(self) -> None:
        """Close the connection, or stop making one, in bounded time."""
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.wait({self._attempt})
        await self._close()

    def _on_attempt_done(self, attempt: asyncio.Task[Link]) -> None:
        self._attempt = None
        if not attempt.cancelled():
            attempt.exception()  # those who waited may be gone

    async def _renew(self) -> Link:
        if self._link is not None:
            # Its users log that the broker is gone; why this process dropped it is logged only here.
            level = logging.INFO if self._link.reason else logging.DEBUG
            logger.log(level, "%s: %s", self.name, self._link.loss)
            await self._close()
        self._link = await self._connect()
        return self._link

    async def _close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _connect(self) -> Link:
        hosts, options = self._address.hosts, self._options
        seconds = max(min(_LEAST_SECONDS, options.timeout), options.timeout / len(hosts))
        purpose = f"{self._purpose} {process_name()}"
        problem = BrokerError(f"{self.name}: no host")
        for host in random.sample(hosts, len(hosts)):
            link = Link(self.name, options.heartbeat, options.timeout, self._clock)
            try:
                await link.open(self._address.url(host, options.heartbeat), purpose, seconds)
            except BrokerError as error:
                problem = error
            else:
                return link
        raise problem
