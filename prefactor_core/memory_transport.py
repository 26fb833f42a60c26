"""The plugin for ``memory://``: operations wait in this process and are sent from it."""

from typing import Any
from urllib.parse import urlsplit

from prefactor_core.config import PrefactorCoreConfig
from prefactor_core.exceptions import TransportError
from prefactor_core.hookspecs import hookimpl
from prefactor_core.queue.memory import InMemoryQueue


@hookimpl
def prefactor_create_queue(url: str, config: PrefactorCoreConfig) -> InMemoryQueue[Any] | None:
    """Build a bounded queue in memory.

    Raises:
        TransportError: The URL has a host or options; ``memory://`` takes none.
    """
    parts = urlsplit(url)
    if parts.scheme != "memory":
        return None
    if parts.netloc or parts.path.strip("/") or parts.query:
        raise TransportError("transport_url: memory:// takes neither a host nor options")
    return InMemoryQueue(config.buffer_operations, config.buffer_bytes, policy=config.buffer_policy)
