"""The plugin for ``amqp://`` and ``amqps://``."""

from typing import Final
from urllib.parse import urlsplit

from prefactor_core.transport import BrokerQueue, MissingDriverError, PrefactorCoreConfig, hookimpl

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
    return BrokerQueue.from_config(RabbitBroker(url), config)
