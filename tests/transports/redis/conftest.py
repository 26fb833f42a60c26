"""Ends of a broker that a test opens, closed after it, and the raw server beside them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
import redis

from prefactor_core.broker.driver import (
    ConsumingEnd,
    DeadLetterEnd,
    End,
    Message,
    Partition,
    PublishingEnd,
)
from prefactor_core.exceptions import BrokerError
from prefactor_redis.broker import RedisBroker
from prefactor_redis.lease import Lease
from tests.support.brokers.redis_server import RedisServer

Clock = Callable[[], float]


class Ends:
    """Opens ends of the broker at a URL."""

    def __init__(self, url: str, prefix: str) -> None:
        self.url = url
        self.prefix = prefix
        self.opened: list[End] = []

    def broker(self, options: str = "", clock: Clock | None = None) -> RedisBroker:
        url = f"{self.url}?prefix={self.prefix}{'&' + options if options else ''}"
        return RedisBroker(url) if clock is None else RedisBroker(url, clock=clock)

    def publishing(self, options: str = "") -> PublishingEnd:
        end = self.broker(options).publishing()
        self.opened.append(end)
        return end

    def consuming(self, options: str = "", clock: Clock | None = None) -> ConsumingEnd:
        end = self.broker(options, clock).consuming()
        self.opened.append(end)
        return end

    def dead_letters(self) -> DeadLetterEnd:
        end = self.broker().dead_letters()
        self.opened.append(end)
        return end

    async def close(self) -> None:
        for end in self.opened:
            await end.disconnect()


@pytest.fixture
async def ends(redis_url: str, redis_prefix: str) -> AsyncIterator[Ends]:
    opened = Ends(redis_url, redis_prefix)
    yield opened
    await opened.close()


@pytest.fixture
async def ends_at(redis_prefix: str) -> AsyncIterator[Callable[[str], Ends]]:
    """Make ends of a server that the test has started."""
    made: list[Ends] = []

    def make(url: str) -> Ends:
        made.append(Ends(url, redis_prefix))
        return made[-1]

    yield make
    for opened in made:
        await opened.close()


@pytest.fixture
def raw(redis_url: str) -> Iterator[redis.Redis]:
    """The shared server, to look at what is there."""
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        yield client


def is_held(one: Partition | Lease) -> bool:
    """Ask anew: nothing is concluded from what it was before."""
    return one.held


async def owned(end: ConsumingEnd, number: int = 0, seconds: float = 10.0) -> Partition:
    """Acquire a partition as soon as nobody else has it."""
    deadline = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < deadline:
        partition = await end.acquire(number, 100)
        if partition is not None:
            return partition
        await asyncio.sleep(0.02)
    raise TimeoutError(f"partition {number} was not to be had")


async def read(partition: Partition, count: int, seconds: float = 10.0) -> list[Message]:
    """Read until there are so many messages."""
    found: list[Message] = []
    async with asyncio.timeout(seconds):
        while len(found) < count:
            found += await partition.read(count - len(found), 1_000_000)
    return found


async def eventually(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError(f"not in time: {what}")
        await asyncio.sleep(0.02)


async def persistently(call: Callable[[], Awaitable[None]], seconds: float = 20.0) -> int:
    """Repeat what fails with ``BrokerError`` until it works; return how often it failed."""
    deadline = asyncio.get_running_loop().time() + seconds
    failures = 0
    while True:
        try:
            await call()
        except BrokerError:
            failures += 1
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.05)
        else:
            return failures


async def held_against(server: RedisServer, prefix: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return what is recorded of attempts at operations of partition 0, and of crashes of its owners."""
    tag = f"{{{prefix}:0}}"
    attempts = await asyncio.to_thread(server.command, "HGETALL", f"{tag}:attempts")
    return attempts, await asyncio.to_thread(server.command, "HGETALL", f"{tag}:blame")


def bodies(messages: list[Message]) -> list[bytes]:
    return [message.data for message in messages]
