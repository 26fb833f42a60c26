"""Brokers in containers, where a Docker engine answers."""

import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Protocol

from tests.support.brokers.amqp_handshake import wait_for_amqp
from tests.support.brokers.redis_server import wait_for_redis

_PING_SECONDS = 2
_START_SECONDS = 60.0


class _Wait(Protocol):
    def __call__(self, host: str, port: int, *, seconds: float) -> None: ...


@cache
def docker_answers() -> bool:
    """Return whether a Docker engine answers; asked once, and for two seconds at most."""
    with warnings.catch_warnings():
        # Its client leaves a socket behind when nobody answers.
        warnings.simplefilter("ignore", ResourceWarning)
        answers = _ping()
        gc.collect()
    return answers


def _ping() -> bool:
    try:
        from testcontainers.core.docker_client import DockerClient  # noqa: PLC0415 - only where it matters

        client = DockerClient(timeout=_PING_SECONDS).client
        try:
            return bool(client.ping())
        finally:
            client.close()
    except Exception:  # noqa: BLE001 - whatever is wrong with it, it is not an engine to use
        return False


@contextmanager
def redis_container() -> Iterator[str]:
    """Run a Redis in a container, and yield its address."""
    command = "redis-server --appendonly yes --maxmemory-policy noeviction"
    with _container("redis:7-alpine", 6379, wait_for_redis, command) as (host, port):
        yield f"redis://{host}:{port}/0"


@contextmanager
def rabbitmq_container() -> Iterator[str]:
    """Run a RabbitMQ in a container, and yield its address."""
    with _container("rabbitmq:3.13-alpine", 5672, wait_for_amqp) as (host, port):
        yield f"amqp://guest:guest@{host}:{port}/"


@contextmanager
def _container(image: str, port: int, wait: _Wait, command: str = "") -> Iterator[tuple[str, int]]:
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - only where it matters

    # Not the classes for these two brokers: one needs another AMQP client, and both moved between releases.
    container = DockerContainer(image).with_exposed_ports(port)
    if command:
        container = container.with_command(command)
    with container:
        address = container.get_container_host_ip(), int(container.get_exposed_port(port))
        wait(*address, seconds=_START_SECONDS)
        yield address
