"""Brokers of Redis, and the raw server behind them."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import redis.asyncio as redis

from prefactor_core.transport import ConsumingEnd
from prefactor_redis.broker import RedisBroker
from tests.support.brokers.redis_server import RedisServer
from tests.transports.rig import Clock, Rig


class RedisRig(Rig[RedisBroker]):
    """Brokers of one server or several, which are asked for keys only where they are one."""

    attempts_log = "{prefix:0}:attempts"
    in_isolation = 1

    def broker(self, options: str = "", *, url: str | None = None, clock: Clock | None = None) -> RedisBroker:
        place = f"{url or self.url}?prefix={self.prefix}{'&' + options if options else ''}"
        return RedisBroker(place) if clock is None else RedisBroker(place, clock=clock)

    @asynccontextmanager
    async def raw(self) -> AsyncIterator[redis.Redis]:
        """A client of a stranger."""
        async with redis.Redis.from_url(self.url, protocol=2, decode_responses=True) as client:
            yield client

    def key(self, name: str, partition: int | None = 0) -> str:
        """Return a key of a partition, or of the whole prefix."""
        place = self.prefix if partition is None else f"{self.prefix}:{partition}"
        return f"{{{place}}}:{name}"

    async def end_lease(self, partition: int = 0) -> None:
        """Do what time does to a lease that nobody renews."""
        async with self.raw() as client:
            assert await client.delete(self.key("lease", partition)) == 1

    async def crash(self, owner: ConsumingEnd | None = None) -> None:  # noqa: ARG002 -- the key says who it is
        """Nobody subscribes to the owner's channel, and time ends its lease."""
        async with self.raw() as client:
            await client.hset(self.key("owner"), "channel", "nobody's")
        await self.end_lease()

    async def left(self) -> set[str]:
        async with self.raw() as client:
            keys = [key async for key in client.scan_iter(match=f"*{self.prefix}*", count=10_000)]
        return {key.replace(self.prefix, "prefix") for key in keys}

    async def held_against(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return what is recorded of attempts in partition 0, and of crashes of its owners."""
        async with self.raw() as client:
            attempts, blame = [await client.hgetall(self.key(name)) for name in ("attempts", "blame")]
        return _texts(attempts), _texts(blame)


async def command(server: RedisServer, *words: str) -> object:
    return await asyncio.to_thread(server.command, *words)


def _texts(found: Mapping[bytes | str, bytes | str]) -> dict[str, str]:
    return {str(name): str(value) for name, value in found.items()}
