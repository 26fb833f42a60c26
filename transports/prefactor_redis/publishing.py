"""The end that agents publish through."""

from collections.abc import Sequence
from typing import Final

from redis.exceptions import NoPermissionError

from prefactor_core.transport import BrokerError, PublishingEnd
from prefactor_redis.fleet import agreed_partitions
from prefactor_redis.keys import Keys
from prefactor_redis.link import Wire, integer, text
from prefactor_redis.scripts import PUBLISH, chunks
from prefactor_redis.servers import links_to
from prefactor_redis.target import Address, Target

_CONNECTIONS: Final = 4
"""To one server; agents come in thousands."""
_ENTRIES_AT_ONCE: Final = 1_000
_WAITING_PART: Final = 0.8
"""Of the timeout, for replicas to answer: that answer has to be there before the timeout is over."""
_LOOK_SECONDS: Final = 1.0
"""Between two looks at whether there are still replicas to wait for."""
_LONGEST_SILENCE: Final = 10
"""Seconds since a replica was last heard, of one that counts; they say something every second."""


class RedisPublishingEnd(PublishingEnd):
    """Publishes to Redis: each part of a batch by one script, as a whole or not at all."""

    def __init__(self, target: Target) -> None:
        self._options = target.options
        self._keys = Keys(target.options.prefix)
        self._links = links_to(target, _CONNECTIONS)
        self._short: set[Address] = set()
        """Servers that had too few replicas when something was last published there."""

    async def partitions(self) -> int:
        """Return the recorded number of partitions, or record the one in the URL."""
        return await agreed_partitions(self._links, self._keys, self._options.partitions)

    async def publish(self, partition: int, batch: Sequence[bytes]) -> None:
        """Add a batch to a partition's stream, a large one in parts."""
        confirmed = 0
        for chunk in chunks(batch, _ENTRIES_AT_ONCE, len):
            try:
                await self._publish(partition, chunk)
            except BrokerError as error:
                error.confirmed = confirmed
                raise
            confirmed += len(chunk)

    async def disconnect(self) -> None:
        """Close all connections."""
        await self._links.aclose()

    async def _publish(self, partition: int, envelopes: Sequence[bytes]) -> None:
        key = self._keys.of(partition).operations
        wanted = self._options.replicas
        link = await self._links.of(key)
        # Replicas are waited for on the connection that wrote: the server knows by it what they must have.
        async with link.wire() as wire:
            if link.address in self._short and not await _has_replicas(wire, wanted):
                # Not added: it will be sent again, and would be stored once for each time.
                raise BrokerError(f"{link.address} has not the {wanted} replicas that must have it")
            await wire.run(PUBLISH, [key], envelopes)
            if wanted:
                reached = await self._reached(wire, wanted)
                if reached < wanted:
                    self._short.add(link.address)
                    raise BrokerError(f"{reached} replicas of {wanted} have what was published")
                self._short.discard(link.address)

    async def _reached(self, wire: Wire, wanted: int) -> int:
        """Wait until enough replicas have what this connection wrote; return how many have."""
        left = self._options.timeout * _WAITING_PART
        while True:
            seconds = min(left, _LOOK_SECONDS)
            reached = integer(await wire.call("WAIT", wanted, max(1, int(seconds * 1_000))))
            left -= seconds
            if reached >= wanted or left <= 0 or not await _has_replicas(wire, wanted):
                return reached


async def _has_replicas(wire: Wire, wanted: int) -> bool:
    """Whether a server hears from so many replicas, or does not tell this user."""
    try:
        lines = text(await wire.call("INFO", "replication")).splitlines()
    except NoPermissionError:
        return True
    found = 0
    for line in lines:
        name, _, facts = line.partition(":")
        if name.startswith("slave") and "state=online" in facts:
            lag = facts.rpartition("lag=")[2]
            found += lag.isdecimal() and int(lag) <= _LONGEST_SILENCE
    return found >= wanted
