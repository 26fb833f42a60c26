"""How everything of ours on a Redis is named.

All keys of a partition share a hash tag, and so a cluster's slot: a script may touch them together. One
pattern of an ACL fits all keys and channels: the brace, the prefix, and anything.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PartitionKeys:
    """The keys of one partition.

    Attributes:
        operations: Stream of the unsettled operations; field ``e`` is the envelope.
        lease: Token of the owner; expires.
        owner: Hash of what the next owner has to know. Of the owner: ``token``, ``name``, ``since``,
            ``channel`` (which it subscribes to as long as it lives; missing where it may not), ``run_id`` (of
            the server that it subscribed at) and ``begun`` (id of the operation that it recorded an attempt
            at, which has not ended). Of the partition: ``seen`` (last id handed out by any), ``head`` (first
            unsettled id at the last crash) and ``isolated_until``.
        attempts: Hash from id to how many attempts in isolation began without an end.
        blame: Hash from the token of each owner that crashed at ``head``, or seems to have, to the id that it
            had begun, empty if none.
        dead: Stream of the dead letters; field ``r`` holds one.
    """

    operations: bytes
    lease: bytes
    owner: bytes
    attempts: bytes
    blame: bytes
    dead: bytes

    @property
    def owned(self) -> tuple[bytes, ...]:
        """What an owner's scripts work on, in their order."""
        return (self.lease, self.operations, self.attempts, self.owner, self.blame)


class Keys:
    """The keys under a prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.partitions = f"{{{prefix}}}:partitions".encode()
        """The number of partitions; what lasts as long as anything is published."""
        self.workers = f"{{{prefix}}}:workers".encode()
        """Sorted set of the consumers' tokens by when they expire, in milliseconds of the broker's clock."""
        self.aside = f"{{{prefix}}}:aside".encode()
        """Sorted set like ``workers``, of those that stand aside."""

    def of(self, partition: int) -> PartitionKeys:
        """Return the keys of a partition."""
        tag = f"{{{self._prefix}:{partition}}}"
        names = ("operations", "lease", "owner", "attempts", "blame", "dead")
        return PartitionKeys(*(f"{tag}:{name}".encode() for name in names))

    def answers(self, address: str) -> tuple[bytes, bytes]:
        """Return the keys of the way back to one reader of answers, which expire when it reads no longer.

        They are the number of answers that it has taken, without which nobody adds any, and the list of those
        that it has not taken.
        """
        tag = f"{{{self._prefix}:answers:{address}}}"
        return f"{tag}:taken".encode(), f"{tag}:answers".encode()

    def alive(self, member: str) -> str:
        """Return the channel that a consumer subscribes to as long as it lives; no key."""
        return f"{{{self._prefix}}}:alive:{member}"
