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

import pytest
import redis

from prefactor_core import PrefactorCoreConfig
from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.plugins import create_queue
from tests.support.brokers.rabbitmq_cluster import RabbitCluster
from tests.support.brokers.rabbitmq_server import RabbitServer
from tests.support.brokers.redis_cluster import RedisCluster
from tests.support.brokers.redis_server import RedisServer
from tests.support.brokers.sentinel import RedisSentinel
from tests.support.brokers.shared import SharedBrokers, ask, find_own
from tests.support.brokers.sources import RABBITMQ, REDIS, Broker, Decision, Source

SHARED = pytest.StashKey[SharedBrokers]()
"""Where the controller of the run keeps the brokers that its tests share."""

__all__ = [
    "amqp_prefix",
    "amqp_url",
    "make_rabbit_server",
    "make_redis_server",
    "rabbit_cluster",
    "rabbit_cluster_of_session",
    "rabbit_server",
    "rabbit_server_of_session",
    "redis_cluster",
    "redis_cluster_of_session",
    "redis_prefix",
    "redis_sentinel",
    "redis_sentinel_of_session",
    "redis_server",
    "redis_url",
]


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


@pytest.fixture
def make_redis_server(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Start a Redis with lines of configuration: ``make_redis_server("maxmemory 10mb")``."""
    _need_programs(REDIS)
    with ExitStack() as servers:

        def make(*options: str) -> RedisServer:
            server = RedisServer(tmp_path / f"redis-{uuid.uuid4().hex[:8]}", *options)
            servers.callback(server.close)
            server.start()
            return server

        yield make


@pytest.fixture
def redis_server(make_redis_server: Callable[..., RedisServer]) -> RedisServer:
    """A Redis of this test alone."""
    return make_redis_server()


@pytest.fixture(scope="session")
def redis_cluster_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """The cluster behind ``redis_cluster``."""
    _need_programs(REDIS)
    cluster = RedisCluster(tmp_path_factory.mktemp("redis-cluster"))
    cluster.start()
    yield cluster
    cluster.close()


@pytest.fixture
def redis_cluster(redis_cluster_of_session: RedisCluster) -> RedisCluster:
    """A whole cluster; keys of earlier tests are still in it."""
    redis_cluster_of_session.heal()
    return redis_cluster_of_session


@pytest.fixture(scope="session")
def redis_sentinel_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisSentinel]:
    """The servers behind ``redis_sentinel``."""
    _need_programs(REDIS)
    servers = RedisSentinel(tmp_path_factory.mktemp("redis-sentinel"))
    servers.start()
    yield servers
    servers.close()


@pytest.fixture
def redis_sentinel(redis_sentinel_of_session: RedisSentinel) -> RedisSentinel:
    """A master, a replica and their sentinels; keys of earlier tests are still in it."""
    redis_sentinel_of_session.heal()
    return redis_sentinel_of_session


@pytest.fixture
def make_rabbit_server(tmp_path: Path) -> Iterator[Callable[..., RabbitServer]]:
    """Start a RabbitMQ, in seconds, with lines of configuration: ``make_rabbit_server("heartbeat = 1")``."""
    _need_programs(RABBITMQ)
    with ExitStack() as servers:

        def make(*config: str) -> RabbitServer:
            server = RabbitServer(tmp_path / f"rabbitmq-{uuid.uuid4().hex[:8]}", *config)
            servers.callback(server.close)
            server.start()
            return server

        yield make


@pytest.fixture(scope="session")
def rabbit_server_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    """The server behind ``rabbit_server``."""
    _need_programs(RABBITMQ)
    server = RabbitServer(tmp_path_factory.mktemp("rabbitmq-own"))
    server.start()
    yield server
    server.close()


@pytest.fixture
def rabbit_server(rabbit_server_of_session: RabbitServer) -> RabbitServer:
    """A RabbitMQ to kill; queues of earlier tests are still in it."""
    rabbit_server_of_session.heal()
    return rabbit_server_of_session


@pytest.fixture(scope="session")
def rabbit_cluster_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitCluster]:
    """The cluster behind ``rabbit_cluster``."""
    _need_programs(RABBITMQ)
    cluster = RabbitCluster(tmp_path_factory.mktemp("rabbitmq-cluster"))
    cluster.start()
    yield cluster
    cluster.close()


@pytest.fixture
def rabbit_cluster(rabbit_cluster_of_session: RabbitCluster) -> RabbitCluster:
    """A whole cluster; queues of earlier tests are still in it."""
    rabbit_cluster_of_session.heal()
    return rabbit_cluster_of_session
