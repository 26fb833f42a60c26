"""Fixtures: a broker that tests share, and brokers that a test may break.

``redis_url`` and ``amqp_url`` are for tests that leave the broker as it is, each under names of its own
(``redis_prefix``, ``amqp_prefix``). The others are processes of the test's own. Those that take seconds to
start serve the whole session and are healed before each test: whatever one has killed or frozen is up again.
"""

import asyncio
import os
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis

from prefactor_core import PrefactorCoreConfig
from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.plugins import create_queue
from tests.support.brokers.process import Server, Servers
from tests.support.brokers.rabbitmq_cluster import RabbitCluster
from tests.support.brokers.rabbitmq_server import RabbitServer
from tests.support.brokers.redis_cluster import RedisCluster
from tests.support.brokers.redis_server import RedisServer
from tests.support.brokers.sentinel import RedisSentinel
from tests.support.brokers.shared import SHARED, ask, find_own
from tests.support.brokers.sources import RABBITMQ, REDIS, Broker, Decision, Source

S = TypeVar("S", bound=Server | Servers)


def _obey(decision: Decision) -> str:
    if decision.source is Source.SKIP:
        pytest.skip(decision.text)
    if decision.source is Source.FAIL:
        pytest.fail(decision.text, pytrace=False)
    return decision.text


def _find(config: pytest.Config, broker: Broker) -> str:
    if address := getattr(config, "workerinput", {}).get("shared_brokers"):
        return _obey(ask(address, broker))
    return _obey(config.stash[SHARED].find(broker))


def _need_programs(broker: Broker) -> None:
    _obey(find_own(broker))


# What tests share.


@pytest.fixture(scope="session")
def redis_url(pytestconfig: pytest.Config) -> str:
    """The address of a Redis that nobody may stop, flush or reconfigure."""
    return _find(pytestconfig, REDIS)


@pytest.fixture(scope="session")
def amqp_url(pytestconfig: pytest.Config) -> str:
    """The address of a RabbitMQ that nobody may stop or reconfigure."""
    return _find(pytestconfig, RABBITMQ)


@pytest.fixture
def redis_prefix(request: pytest.FixtureRequest) -> Iterator[str]:
    """A prefix for all keys of a test; those in the shared Redis are deleted after it."""
    shared = request.getfixturevalue("redis_url") if "redis_url" in request.fixturenames else None
    prefix = f"test-{uuid.uuid4().hex}"
    yield prefix
    if shared is not None:
        with redis.Redis.from_url(shared) as client:
            # With anything before it: a key may begin with the brace of a hash tag.
            for key in list(client.scan_iter(match=f"*{prefix}*", count=1_000)):
                client.unlink(key)


@pytest.fixture
def amqp_prefix(request: pytest.FixtureRequest) -> Iterator[str]:
    """A prefix for the names of all queues and exchanges of a test; a server that stays is cleared."""
    shared = request.getfixturevalue("amqp_url") if "amqp_url" in request.fixturenames else None
    prefix = f"test-{uuid.uuid4().hex}"
    yield prefix
    if shared is not None and shared == os.environ.get("PREFACTOR_TEST_AMQP_URL"):
        with ThreadPoolExecutor(1) as beside:  # pytest's own thread has an event loop already
            beside.submit(_clear, f"{shared}?prefix={prefix}").result()


def _clear(url: str) -> None:
    queue = create_queue(url, PrefactorCoreConfig(transport_url=url))
    assert isinstance(queue, BrokerQueue)
    asyncio.run(queue.broker.clear())


# What a test may break.


def _maker_of(kind: Callable[..., S], broker: Broker, description: str) -> Any:
    def maker(tmp_path: Path) -> Iterator[Callable[..., S]]:
        _need_programs(broker)
        with ExitStack() as servers:

            def make(*options: str) -> S:
                server = kind(tmp_path / f"{broker.name}-{uuid.uuid4().hex[:8]}", *options)
                servers.callback(server.close)
                server.start()
                return server

            yield make

    maker.__doc__ = description
    return pytest.fixture(maker)


def _of_session(kind: Callable[[Path], S], broker: Broker) -> Any:
    def of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S]:
        _need_programs(broker)
        servers = kind(tmp_path_factory.mktemp(broker.name))
        servers.start()
        yield servers
        servers.close()

    return pytest.fixture(scope="session")(of_session)


make_redis_server = _maker_of(
    RedisServer, REDIS, 'Start a Redis with lines of configuration: ``make_redis_server("maxmemory 10mb")``.'
)
make_rabbit_server = _maker_of(
    RabbitServer,
    RABBITMQ,
    'Start a RabbitMQ, in seconds: ``make_rabbit_server("heartbeat = 1")``.',
)
redis_cluster_of_session = _of_session(RedisCluster, REDIS)
redis_sentinel_of_session = _of_session(RedisSentinel, REDIS)
rabbit_server_of_session = _of_session(RabbitServer, RABBITMQ)
rabbit_cluster_of_session = _of_session(RabbitCluster, RABBITMQ)


@pytest.fixture
def redis_server(make_redis_server: Callable[..., RedisServer]) -> RedisServer:
    """A Redis of this test alone."""
    return make_redis_server()


@pytest.fixture
def redis_cluster(redis_cluster_of_session: RedisCluster) -> RedisCluster:
    """A whole cluster; keys of earlier tests are still in it."""
    redis_cluster_of_session.heal()
    return redis_cluster_of_session


@pytest.fixture
def redis_sentinel(redis_sentinel_of_session: RedisSentinel) -> RedisSentinel:
    """A master, a replica and their sentinels; keys of earlier tests are still in it."""
    redis_sentinel_of_session.heal()
    return redis_sentinel_of_session


@pytest.fixture
def rabbit_server(rabbit_server_of_session: RabbitServer) -> RabbitServer:
    """A RabbitMQ to kill; queues of earlier tests are still in it."""
    rabbit_server_of_session.heal()
    return rabbit_server_of_session


@pytest.fixture
def rabbit_cluster(rabbit_cluster_of_session: RabbitCluster) -> RabbitCluster:
    """A whole cluster; queues of earlier tests are still in it."""
    rabbit_cluster_of_session.heal()
    return rabbit_cluster_of_session
