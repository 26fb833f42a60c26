"""The broker that the demo uses: checked before anything starts, used under a prefix of its own, cleared."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from prefactor_core.broker.driver import ConsumingEnd
from prefactor_core.exceptions import BrokerError
from prefactor_worker.demo.errors import DemoError
from prefactor_worker.operate.look import count_dead_letters
from prefactor_worker.run.worker import broker_queue

_PARTITIONS: Final = 8
_CLEARING_SECONDS: Final = 4.0
_SHORT: Final = {"redis": {"lease": "3"}, "amqp": {"heartbeat": "3"}}
"""By what the scheme begins with, the options after which a worker that was killed is missed soon."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where on the broker the demo is.

    Attributes:
        url: The transport URL.
        own: Whether nobody else is there: its prefix is a random one.
    """

    url: str
    own: bool


def place_at(url: str) -> Place:
    """Return the place at a transport URL: what it says goes before what the demo would choose.

    Raises:
        TransportError: The URL cannot be served, or names no broker.
    """
    broker_queue(url)  # complains of what was given, and not of what is added
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    own = "prefix" not in given
    chosen = {}
    if own:
        chosen = {"prefix": f"prefactor-demo-{secrets.token_hex(4)}", "partitions": str(_PARTITIONS)}
    for scheme, options in _SHORT.items():
        if parts.scheme.startswith(scheme):
            chosen |= options
    more = urlencode({name: value for name, value in chosen.items() if name not in given})
    query = "&".join(filter(None, (parts.query, more)))
    return Place(urlunsplit(parts._replace(query=query)), own)


class DemoBroker:
    """What the demo asks the broker.

    Args:
        place: Where on it the demo is.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._broker = broker_queue(place.url).broker
        self._end: ConsumingEnd | None = None
        self._left = False
        self.name = self._broker.name
        """What messages call it."""
        self.warnings: list[str] = []
        """By which of its settings operations can be lost or held up."""

    async def check(self) -> None:
        """Look whether it can be used.

        Raises:
            DemoError: It cannot.
        """
        try:
            self.warnings = await self._broker.check()
            if not self._place.own:
                states = await self._consuming().states()
                if any(state.waiting or state.owner is not None for state in states):
                    raise DemoError(
                        f"{self.name} is in use, and the demo's workers would take what others have put "
                        "there: leave the prefix out of the URL, and the demo takes one of its own"
                    )
        except BrokerError as error:
            raise DemoError(f"the broker cannot be used: {error}") from error

    async def partitions(self) -> int:
        """Return how many partitions are recorded; 0 while the broker is unavailable."""
        try:
            return len(await self._consuming().states())
        except BrokerError:
            return 0

    async def waiting(self) -> int | None:
        """Return how many operations wait at the broker; ``None`` while it is unavailable."""
        try:
            return await self._consuming().waiting()
        except BrokerError:
            return None

    async def dead_letters(self) -> int:
        """Return how many dead letters there are."""
        try:
            return await count_dead_letters(self._broker)
        except BrokerError:
            return 0

    async def disconnect(self) -> None:
        """Let go of the connections."""
        end, self._end = self._end, None
        if end is not None:
            await end.disconnect()

    async def leave(self) -> None:
        """Disconnect, and delete what the demo has made, if nobody else can have use for it."""
        if self._left:
            return
        await self.disconnect()
        self._left = True
        if self._place.own:
            with contextlib.suppress(BrokerError, TimeoutError):
                async with asyncio.timeout(_CLEARING_SECONDS):
                    await self._broker.clear()

    def _consuming(self) -> ConsumingEnd:
        if self._end is None:
            self._end = self._broker.consuming()
        return self._end


@contextlib.asynccontextmanager
async def demo_broker(place: Place) -> AsyncIterator[DemoBroker]:
    """Use a broker for the length of an ``async with``.

    Raises:
        DemoError: It cannot be used.
    """
    broker = DemoBroker(place)
    try:
        await broker.check()
    except DemoError:
        await broker.disconnect()
        raise
    except asyncio.CancelledError:
        await broker.leave()
        raise
    try:
        yield broker
    finally:
        await broker.leave()
