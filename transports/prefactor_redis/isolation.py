"""Attempts at the operations of a partition whose owners crashed, each recorded before it begins."""

from collections.abc import Awaitable, Callable, Sequence

from prefactor_core.broker.driver import MAX_ATTEMPTS
from prefactor_redis.keys import PartitionKeys
from prefactor_redis.lease_scripts import BEGIN, WITHDRAW
from prefactor_redis.links import Links
from prefactor_redis.replies import Reply, Word, integer, maybe_data
from prefactor_redis.script import Script

Fenced = Callable[[Script, Sequence[Word]], Awaitable[list[Reply]]]
"""Runs a script as the owner; raises ``BrokerError`` where somebody else is."""


class Isolation:
    """One owner's attempts. It has at most one that has not ended.

    Args:
        keys: Of the partition.
        links: Connections.
        fenced: Runs a script as the owner.
    """

    def __init__(self, keys: PartitionKeys, links: Links, fenced: Fenced) -> None:
        self._keys = keys
        self._links = links
        self._fenced = fenced
        self._begun = b""

    async def attempts(self, operation: bytes) -> int:
        """Return how many attempts of earlier owners stand.

        Raises:
            BrokerError: It could not be asked.
        """
        link = await self._links.of(self._keys.attempts)
        reply, begun = map(
            maybe_data,
            await link.call_each(
                [("HGET", self._keys.attempts, operation), ("HGET", self._keys.owner, "begun")]
            ),
        )
        recorded = 0 if reply is None else int(reply)
        return recorded - 1 if recorded and self._begun == operation == begun else recorded

    async def begin(self, operation: bytes) -> bool:
        """Record an attempt; return whether it is one of the first that are allowed.

        Raises:
            BrokerError: It is not known whether that was done. Repeating it records it once.
        """
        self._begun = operation
        (recorded,) = await self._fenced(BEGIN, (operation,))
        return integer(recorded) <= MAX_ATTEMPTS

    async def withdraw(self, operation: bytes) -> None:
        """Take this owner's attempt back, if it has not ended.

        Raises:
            BrokerError: It is not known whether that was done. Repeating it is harmless.
        """
        if self._begun != operation:
            return
        await self._fenced(WITHDRAW, (operation,))
        self._begun = b""

    def ended(self, operations: Sequence[bytes]) -> None:
        """Take note that operations were disposed of, and their attempts with them."""
        if self._begun in operations:
            self._begun = b""
