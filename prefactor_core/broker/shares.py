"""Fair shares: how many partitions each consumer of a fleet is to own."""

from prefactor_core.broker.driver import Fleet


def share_of(partitions: int, fleet: Fleet) -> int:
    """Return how many partitions a consumer is to own.

    Where the broker tells ranks, the shares add up to all partitions and differ by one at most. Without
    ranks everybody may take the larger share: none is left over, and whoever comes last may have fewer.
    """
    least, more = divmod(partitions, fleet.size)
    if fleet.rank is None:
        return least + (more > 0)
    return least + (fleet.rank < more)
