"""What all tests share."""

import asyncio
import signal
from collections.abc import Iterator

import pytest

# Imported for pytest, which finds fixtures by their names here: brokers are for every folder of tests.
from tests.support.brokers.fixtures import (  # noqa: F401
    amqp_prefix,
    amqp_url,
    make_rabbit_server,
    make_redis_server,
    rabbit_cluster,
    rabbit_cluster_of_session,
    rabbit_server,
    rabbit_server_of_session,
    redis_cluster,
    redis_cluster_of_session,
    redis_prefix,
    redis_sentinel,
    redis_sentinel_of_session,
    redis_server,
    redis_url,
)


@pytest.fixture(scope="session", autouse=True)
def heed_interrupts() -> None:
    """Have SIGINT end the processes of tests even where the suite runs in the background of a shell.

    That starts it with the signal ignored, which children inherit; they do not inherit a handler.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def event_loop_between_tests() -> Iterator[None]:
    """Give the event loop policy a loop for the time between tests, and close it.

    Without one pytest-asyncio makes it, and a later ``asyncio.run`` in a test drops it unclosed.
    """
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()
