"""What the entry point names: it builds the queue for a ``sqlite://`` URL."""

from urllib.parse import urlsplit

from prefactor_core.broker.buffer import BufferBounds
from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.config import PrefactorCoreConfig
from prefactor_core.hookspecs import hookimpl
from prefactor_sqlite.broker import SqliteBroker


@hookimpl
def prefactor_create_queue(url: str, config: PrefactorCoreConfig) -> BrokerQueue | None:
    """Build a queue that ends in a SQLite file. The file is opened when it is first needed.

    Raises:
        TransportError: The URL is wrong.
    """
    if urlsplit(url).scheme != "sqlite":
        return None
    bounds = BufferBounds(config.buffer_operations, config.buffer_bytes, config.buffer_policy)
    return BrokerQueue(SqliteBroker(url), bounds)
