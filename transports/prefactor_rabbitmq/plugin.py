"""The plugin for ``amqp://`` and ``amqps://``."""

from typing import Final
from urllib.parse import urlsplit

from prefactor_core.broker.buffer import BufferBounds
from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.config import PrefactorCoreConfig
from prefactor_core.exceptions import MissingDriverError
from prefactor_core.hookspecs import hookimpl

_DRIVER: Final = frozenset({"aio_pika", "aiormq"})
"""aio-pika, and its lower half, which this transport imports first."""


@hookimpl
def prefactor_create_queue(url: str, config: PrefactorCoreConfig) -> BrokerQueue | None:
    """Build a queue on RabbitMQ.

    Raises:
        MissingDriverError: The driver is not installed.
        TransportError: The URL is wrong.
    """
    if urlsplit(url).scheme not in {"amqp", "amqps"}:
        return None
    try:
        from prefactor_rabbitmq.broker import RabbitBroker  # noqa: PLC0415 -- it imports the driver
    except ModuleNotFoundError as error:
        if error.name not in _DRIVER:
            raise  # a mistake of ours, or an installation that is broken
        raise MissingDriverError(
            "transport_url: the driver for RabbitMQ is not installed: pip install 'prefactor-core[rabbitmq]'"
        ) from None
    bounds = BufferBounds(config.buffer_operations, config.buffer_bytes, config.buffer_policy)
    return BrokerQueue(RabbitBroker(url), bounds)
