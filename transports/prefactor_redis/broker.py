"""Redis as a broker: makes its ends, checks its servers, and clears a prefix.

Every call that needs a server raises ``BrokerError`` if the server is unavailable or refuses.
"""

import time
from collections.abc import Callable
from contextlib import aclosing

from prefactor_core.transport import Broker, ConsumingEnd, DeadLetterEnd, PublishingEnd
from prefactor_redis.checks import all_problems
from prefactor_redis.consuming import RedisConsumingEnd
from prefactor_redis.dead_letters import RedisDeadLetterEnd
from prefactor_redis.fleet import recorded_keys
from prefactor_redis.keys import Keys
from prefactor_redis.publishing import RedisPublishingEnd
from prefactor_redis.servers import links_to
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
        self._keys = Keys(self._target.options.prefix)
        self._clock = clock
        self.name = self._target.name

    def publishing(self) -> PublishingEnd:
        """Return an end with a few connections, for all of an agent's partitions."""
        return RedisPublishingEnd(self._target)

    def consuming(self) -> ConsumingEnd:
        """Return an end that reads each of its partitions on a connection of its own."""
        return RedisConsumingEnd(self._target, self._clock)

    def dead_letters(self) -> DeadLetterEnd:
        """Return an end that pages through the streams of dead letters."""
        return RedisDeadLetterEnd(self._target)

    async def check(self) -> list[str]:
        """Ask every server about itself, and whether the user may do what is needed."""
        async with aclosing(links_to(self._target, 1)) as links:
            return await all_problems(links, self._target, self._keys)

    async def clear(self) -> None:
        """Delete every key under the prefix, but those of answers, which expire within an hour."""
        async with aclosing(links_to(self._target, 1)) as links:
            for own in await recorded_keys(links, self._keys):
                await links.call("DEL", *own.owned, own.dead)
            await links.call("DEL", self._keys.partitions, self._keys.workers, self._keys.aside)
