"""Keeps one connection: makes it when it is needed, replaces it when it was lost."""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Final

from prefactor_core.exceptions import BrokerError
from prefactor_core.transport import process_name
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
    """Connects to the first host that answers, beginning anywhere.

    There is no loop that reconnects by itself: who needs a connection asks for it, and hears why there is
    none.

    Args:
        address: Where to connect.
        options: Of the URL.
        name: What messages call the broker.
        purpose: What operators see behind the process's name.
        clock: Steady clock, in seconds.
    """

    def __init__(
        self,
        address: Address,
        options: RabbitOptions,
        name: str,
        purpose: str,
        clock: Callable[[], float] = steady_clock,
    ) -> None:
        self._address = address
        self._options = options
        self._name = name
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
            raise BrokerError(f"{self._name}: the connection was closed")
        error = attempt.exception()
        if isinstance(error, BrokerError):
            raise BrokerError(str(error))  # one for each who waited
        return attempt.result()

    async def disconnect(self) -> None:
        """Close the connection, or stop making one, in bounded time."""
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.wait({self._attempt})
        await self._drop()

    def _on_attempt_done(self, attempt: asyncio.Task[Link]) -> None:
        self._attempt = None
        if not attempt.cancelled():
            attempt.exception()  # those who waited may be gone

    async def _renew(self) -> Link:
        if self._link is not None:
            # Its users log that the broker is gone; why this process gave it up is logged only here.
            level = logging.INFO if self._link.reason else logging.DEBUG
            logger.log(level, "%s: %s", self._name, self._link.reason or "the connection was lost")
            await self._drop()
        self._link = await self._connect()
        return self._link

    async def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _connect(self) -> Link:
        hosts = self._address.hosts
        first = random.randrange(len(hosts))  # noqa: S311 -- spreads load, keeps no secret
        seconds = max(min(_LEAST_SECONDS, self._options.timeout), self._options.timeout / len(hosts))
        problem = BrokerError(f"{self._name}: no host")
        for host in (*hosts[first:], *hosts[:first]):
            link = Link(self._name, self._options.heartbeat, self._options.timeout, self._clock)
            try:
                await link.open(
                    self._address.url(host, self._options.heartbeat),
                    f"{self._purpose} {process_name()}",
                    seconds,
                )
            except BrokerError as error:
                problem = error
            else:
                return link
        raise problem
