"""Redis as a broker: what the ends are made of, and whether the server is fit for it."""

import time
from collections.abc import Callable

from prefactor_core.broker.driver import Broker, ConsumingEnd, DeadLetterEnd, PublishingEnd
from prefactor_redis.checks import all_problems
from prefactor_redis.consuming import RedisConsumingEnd
from prefactor_redis.dead_letters import RedisDeadLetterEnd
from prefactor_redis.keys import Keys
from prefactor_redis.links import Links
from prefactor_redis.partition_count import recorded_partitions
from prefactor_redis.publishing import RedisPublishingEnd
from prefactor_redis.servers import servers_of
from prefactor_redis.target import read_target


class RedisBroker(Broker):
    """A Redis, or several: what the URL names.

    Args:
        url: Where it is.
        clock: Seconds that only grow; leases are judged by it.

    Raises:
        TransportError: The URL is wrong.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._target = read_target(url)
        self._clock = clock
        self.name = self._target.name

    def publishing(self) -> PublishingEnd:
        """Return an end with a few connections, for all of an agent's partitions."""
        return RedisPublishingEnd(self._target)

    def consuming(self) -> ConsumingEnd:
        """Return an end that reads each of its partitions on a connection of its own."""
        return RedisConsumingEnd(self._target, self.name, self._clock)

    def dead_letters(self) -> DeadLetterEnd:
        """Return an end that pages through the streams of dead letters."""
        return RedisDeadLetterEnd(self._target)

    async def check(self) -> list[str]:
        """Ask every server about itself, and whether the user may do what is needed.

        Raises:
            BrokerError: One cannot be reached.
        """
        target = self._target
        links = Links(servers_of(target), target.access, size=1, patience=target.options.timeout)
        try:
            return await all_problems(links, target, Keys(target.options.prefix))
        finally:
            await links.close()

    async def clear(self) -> None:
        """Delete every key under the prefix, but those by which answers go back: they expire within an hour.

        Raises:
            BrokerError: The broker is unavailable.
        """
        target = self._target
        keys = Keys(target.options.prefix)
        links = Links(servers_of(target), target.access, size=1, patience=target.options.timeout)
        try:
            for number in range(await recorded_partitions(links, keys) or 0):
                own = keys.of(number)
                link = await links.of(own.operations)
                await link.call("DEL", *own.owned, own.dead)
            link = await links.of(keys.partitions)
            await link.call("DEL", keys.partitions, keys.workers, keys.aside)
        finally:
            await links.close()
