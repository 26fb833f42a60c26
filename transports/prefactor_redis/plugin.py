"""The plugin for ``redis://``, ``rediss://``, ``redis+cluster://`` and ``redis+sentinel://``."""

from typing import TYPE_CHECKING

from prefactor_core.broker.buffer import BufferBounds
from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.config import PrefactorCoreConfig
from prefactor_core.exceptions import MissingDriverError
from prefactor_core.hookspecs import hookimpl
from prefactor_redis.target import SCHEMES

if TYPE_CHECKING:
    from prefactor_redis.broker import RedisBroker

_DRIVER = "redis"


@hookimpl
def prefactor_create_queue(url: str, config: PrefactorCoreConfig) -> BrokerQueue | None:
    """Build a queue that publishes to Redis.

    Raises:
        MissingDriverError: The driver is not installed.
        TransportError: The URL is wrong.
    """
    if url.partition("://")[0].lower() not in SCHEMES:
        return None
    bounds = BufferBounds(config.buffer_operations, config.buffer_bytes, config.buffer_policy)
    return BrokerQueue(_broker(url), bounds)


def _broker(url: str) -> "RedisBroker":
    try:
        # Not before it is needed: this module is there without the driver, to say how it is installed.
        from prefactor_redis.broker import RedisBroker  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name != _DRIVER:
            raise  # a mistake of ours, or an installation that is broken
        raise MissingDriverError(
            "transport_url: the driver for Redis is not installed: pip install 'prefactor-core[redis]'"
        ) from None
    return RedisBroker(url)
