"""What a fleet agrees on: the number of partitions, and two sorted sets of workers.

The number is written once, and read by all processes ever after. One set has the workers that take part, the
other those that stand aside.
"""

import logging
from typing import Final

from prefactor_core.transport import MAX_PARTITIONS, BrokerError, Fleet
from prefactor_redis.keys import Keys, PartitionKeys
from prefactor_redis.replies import integer, items, maybe_data
from prefactor_redis.scripts import ALWAYS, LOOKING, Script
from prefactor_redis.servers import Links

logger = logging.getLogger("prefactor_redis")

_NOW: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
_ENTER: Final = (
    _NOW
    + """
local function enter(set, other, token, milliseconds)
  redis.call('ZREM', other, token)
  redis.call('ZREMRANGEBYSCORE', set, '-inf', now)
  redis.call('ZADD', set, now + milliseconds, token)
  redis.call('PEXPIRE', set, milliseconds)
end
"""
)

JOIN: Final = Script(
    ALWAYS
    + _ENTER
    + """
local workers, token = KEYS[1], ARGV[1]
enter(workers, KEYS[2], token, tonumber(ARGV[2]))
-- An emptied server has lost this, too; agents that know the number go on by it.
if ARGV[3] ~= '' then redis.call('SET', KEYS[3], ARGV[3], 'NX') end
local members = redis.call('ZRANGE', workers, 0, -1)
table.sort(members)
for i, member in ipairs(members) do
  if member == token then return {#members, i - 1} end
end
"""
)
"""``KEYS``: workers, aside, partitions. ``ARGV``: token, milliseconds, number of partitions or ''.

Returns the size of the fleet and one's place in it, from 0.
"""

STAND_ASIDE: Final = Script(
    ALWAYS + _ENTER + "enter(KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2]))\nreturn 1\n"
)
"""``KEYS``: aside, workers. ``ARGV``: token, milliseconds."""

ASIDE: Final = Script(LOOKING + _NOW + "return redis.call('ZCOUNT', KEYS[1], '(' .. now, '+inf')\n")
"""``KEYS``: aside."""

LEAVE: Final = Script(
    ALWAYS + "return redis.call('ZREM', KEYS[1], ARGV[1]) + redis.call('ZREM', KEYS[2], ARGV[1])\n"
)
"""``KEYS``: workers, aside. ``ARGV``: token."""


async def recorded_partitions(links: Links, keys: Keys) -> int | None:
    """Return the recorded number of partitions, ``None`` if there is none."""
    link = await links.of(keys.partitions)
    recorded = maybe_data(await link.call("GET", keys.partitions))
    if recorded is None:
        return None
    if not (recorded.isdigit() and len(recorded) <= 4 and 1 <= int(recorded) <= MAX_PARTITIONS):
        raise BrokerError(
            f"{keys.partitions.decode()} does not hold a number of partitions; is it of others?"
        )
    return int(recorded)


async def recorded_keys(links: Links, keys: Keys) -> list[PartitionKeys]:
    """Return the keys of all partitions; none where nobody has published yet."""
    return [keys.of(number) for number in range(await recorded_partitions(links, keys) or 0)]


async def agreed_partitions(links: Links, keys: Keys, wanted: int) -> int:
    """Return the recorded number of partitions; where there is none, record the one wanted."""
    # Asked first: a full server refuses to set, even what would change nothing.
    recorded = await recorded_partitions(links, keys)
    if recorded is not None:
        return recorded
    link = await links.of(keys.partitions)
    await link.call("SET", keys.partitions, wanted, "NX")
    recorded = await recorded_partitions(links, keys)
    if recorded is None:
        raise BrokerError("the number of partitions was recorded, and is gone again")
    return recorded


class Membership:
    """One worker's place in the fleet, by its token; it is counted for ``seconds`` after its last call."""

    def __init__(self, links: Links, keys: Keys, token: str, seconds: float) -> None:
        self._links = links
        self._keys = keys
        self._token = token
        self._milliseconds = int(seconds * 1_000)
        self._entered = False

    async def join(self, partitions: int | None) -> Fleet:
        """Be counted among those that take part, and count them.

        Args:
            partitions: The number of partitions, if known; recorded again if the server has lost it.
        """
        link = await self._links.of(self._keys.workers)
        self._entered = True  # even without an answer
        keys = (self._keys.workers, self._keys.aside, self._keys.partitions)
        known = "" if partitions is None else partitions
        size, rank = items(await link.run(JOIN, keys, (self._token, self._milliseconds, known)))
        return Fleet(integer(size), integer(rank))

    async def stand_aside(self) -> None:
        """Be counted among those that stand aside, and no longer among those that take part."""
        link = await self._links.of(self._keys.aside)
        self._entered = True
        await link.run(STAND_ASIDE, (self._keys.aside, self._keys.workers), (self._token, self._milliseconds))

    async def standing_aside(self) -> int:
        """Return how many stand aside; changes nothing."""
        link = await self._links.of(self._keys.aside)
        return integer(await link.run(ASIDE, [self._keys.aside]))

    async def leave(self) -> None:
        """Be counted no longer; if the broker is unavailable, the membership expires."""
        if not self._entered:
            return
        self._entered = False
        try:
            link = await self._links.of(self._keys.workers)
            await link.run(LEAVE, (self._keys.workers, self._keys.aside), [self._token])
        except BrokerError as error:
            logger.debug("the fleet was not told of a worker that left: %s", error)
