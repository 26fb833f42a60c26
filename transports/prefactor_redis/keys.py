"""How everything of ours on a Redis is named.

All keys of a partition share a hash tag, and so a cluster's slot: a script may touch them together.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PartitionKeys:
    """The keys of one partition.

    Attributes:
        operations: Stream of the unsettled operations; field ``e`` is the envelope.
        lease: Token of the owner; expires.
        owner: Hash of what the next owner has to know: ``token``, ``name`` and ``since`` of the owner,
            ``seen`` (last id handed out by any), ``head`` (first unsettled id at the last crash),
            ``crashes`` and ``careful_until``.
        attempts: Hash from id to how often it was begun alone.
        dead: Stream of the dead letters; field ``r`` is the record.
    """

    operations: bytes
    lease: bytes
    owner: bytes
    attempts: bytes
    dead: bytes


class Keys:
    """The keys under a prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.partitions = f"{{{prefix}}}:partitions".encode()
        """The number of partitions; what lasts as long as anything is published."""
        self.workers = f"{{{prefix}}}:workers".encode()
        """Sorted set of the consumers' tokens by when they expire, in milliseconds of the broker's clock."""

    def of(self, partition: int) -> PartitionKeys:
        """Return the keys of a partition."""
        tag = f"{{{self._prefix}:{partition}}}"
        names = ("operations", "lease", "owner", "attempts", "dead")
        return PartitionKeys(*(f"{tag}:{name}".encode() for name in names))
