"""Which partition an operation belongs to, the same in every process and every release."""

from hashlib import blake2b


def partition_of(name: str, partitions: int) -> int:
    """Return the partition, from 0, of an instance (or of an operation that belongs to none).

    Args:
        name: The instance's id, or the operation's.
        partitions: How many there are.
    """
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % partitions
