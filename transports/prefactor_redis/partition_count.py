"""How many partitions there are: written once, and read by everybody ever after."""

from prefactor_core.broker.options import MAX_PARTITIONS
from prefactor_core.exceptions import BrokerError
from prefactor_redis.keys import Keys
from prefactor_redis.links import Links
from prefactor_redis.replies import Reply, maybe_data


async def recorded_partitions(links: Links, keys: Keys) -> int | None:
    """Return the recorded number, ``None`` if there is none.

    Raises:
        BrokerError: The broker is unavailable, or what is recorded is no such number.
    """
    link = await links.of(keys.partitions)
    return _number(await link.call("GET", keys.partitions), keys)


async def agreed_partitions(links: Links, keys: Keys, wanted: int) -> int:
    """Return the recorded number; where there is none, record the one wanted.

    Raises:
        BrokerError: The broker is unavailable or refuses, or what is recorded is no such number.
    """
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


def _number(reply: Reply, keys: Keys) -> int | None:
    recorded = maybe_data(reply)
    if recorded is None:
        return None
    if not (recorded.isdigit() and len(recorded) <= 4 and 1 <= int(recorded) <= MAX_PARTITIONS):
        raise BrokerError(
            f"{keys.partitions.decode()} does not hold a number of partitions; is it of others?"
        )
    return int(recorded)
