"""What a fleet agrees on: the number of partitions, and two sorted sets of workers.

The number is written once, and read by all processes ever after. One set has the workers that take part, the
other those that stand aside.
"""

from typing import Final

from prefactor_core.transport import MAX_PARTITIONS, BrokerError
from prefactor_redis.keys import Keys, PartitionKeys
from prefactor_redis.link import maybe_data
from prefactor_redis.scripts import always, looking
from prefactor_redis.servers import Links

_FLEET: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function enter(set, other, token, milliseconds)
  redis.call('ZREM', other, token)
  redis.call('ZREMRANGEBYSCORE', set, '-inf', now)
  redis.call('ZADD', set, now + milliseconds, token)
  redis.call('PEXPIRE', set, milliseconds)
end
"""

JOIN: Final = always(
    _FLEET
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

STAND_ASIDE: Final = always(_FLEET + "enter(KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2]))\nreturn 1\n")
"""``KEYS``: aside, workers. ``ARGV``: token, milliseconds."""

ASIDE: Final = looking(_FLEET + "return redis.call('ZCOUNT', KEYS[1], '(' .. now, '+inf')\n")
"""``KEYS``: aside."""

LEAVE: Final = always("return redis.call('ZREM', KEYS[1], ARGV[1]) + redis.call('ZREM', KEYS[2], ARGV[1])\n")
"""``KEYS``: workers, aside. ``ARGV``: token."""


async def recorded_partitions(links: Links, keys: Keys) -> int | None:
    """Return the recorded number of partitions, ``None`` if there is none."""
    recorded = maybe_data(await links.call("GET", keys.partitions))
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
    if recorded is None:
        await links.call("SET", keys.partitions, wanted, "NX")
        recorded = await recorded_partitions(links, keys)
    if recorded is None:
        raise BrokerError("the number of partitions was recorded, and is gone again")
    return recorded
