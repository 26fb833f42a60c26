"""Ids for what the caller did not name."""

from prefactor_core.identifiers import PfidFactory, is_pfid, partition_of

__all__ = ["is_pfid", "new_id", "partition_of"]


def new_id(relative: str | None = None) -> str:
    """Make an id for something that the caller did not name.

    Args:
        relative: An id whose partition the new one shares. Without it, the partition is random.
    """
    ids = PfidFactory()
    return ids.related(relative) if relative else ids.new()
