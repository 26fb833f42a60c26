"""Ids for what the caller did not name."""

from functools import lru_cache
from hashlib import blake2b

from prefactor_core.identifiers import PfidFactory


def new_id(relative: str | None = None) -> str:
    """Make an id for something that the caller did not name.

    Args:
        relative: An id whose partition the new one shares. Without it, the partition is random.
    """
    ids = PfidFactory()
    return ids.related(relative) if relative else ids.new()


@lru_cache(maxsize=1024)
def id_of(*names: str, relative: str | None = None) -> str:
    """Make the id of something that is known by name only, the same every time.

    Args:
        names: What it is called, from the widest to the narrowest.
        relative: An id whose partition it shares.
    """
    digest = blake2b("\0".join(names).encode("utf-8", "surrogatepass")).digest()
    ids = PfidFactory(now_ms=lambda: 0, random_bytes=lambda size: digest[:size])
    return ids.related(relative) if relative else ids.new()
