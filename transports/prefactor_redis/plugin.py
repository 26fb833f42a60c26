"""The plugin for ``redis://``, ``rediss://``, ``redis+cluster://`` and ``redis+sentinel://``."""

from prefactor_core.transport import BrokerQueue, MissingDriverError, PrefactorCoreConfig, hookimpl
from prefactor_redis.target import SCHEMES


@hookimpl
def prefactor_create_queue(url: str, config: PrefactorCoreConfig) -> BrokerQueue | None:
    """Build a queue on Redis.

    Raises:
        MissingDriverError: The driver is not installed.
        TransportError: The URL is wrong.
    """
    if url.partition("://")[0].lower() not in SCHEMES:
        return None
    try:
        from prefactor_redis.broker import RedisBroker  # noqa: PLC0415 -- it imports the driver
    except ModuleNotFoundError as error:
        if error.name != "redis":
            raise  # a mistake of ours, or an installation that is broken
        raise MissingDriverError(
            "transport_url: the driver for Redis is not installed: pip install 'prefactor-core[redis]'"
        ) from None
    return BrokerQueue.from_config(RedisBroker(url), config)
