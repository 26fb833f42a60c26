"""What the entry point names: it builds the queue for a ``sqlite://`` URL."""

from urllib.parse import urlsplit

from prefactor_core.transport import BrokerQueue, PrefactorCoreConfig, hookimpl
from prefactor_sqlite.broker import SqliteBroker


@hookimpl
def prefactor_create_queue(url: str, config: PrefactorCoreConfig) -> BrokerQueue | None:
    """Build a queue that ends in a SQLite file. The file is opened when it is first needed.

    Raises:
        TransportError: The URL is wrong.
    """
    if urlsplit(url).scheme != "sqlite":
        return None
    return BrokerQueue.from_config(SqliteBroker(url), config)
