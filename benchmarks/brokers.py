"""A place of its own on a broker for each run, and its end."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import aio_pika
import redis

from prefactor_rabbitmq.names import Names

_PARTITIONS: Final = 16


@asynccontextmanager
async def fresh_prefix(url: str) -> AsyncIterator[str]:
    """Yield the URL with a new prefix; everything under it is deleted afterwards."""
    prefix = f"bench-{uuid.uuid4().hex[:8]}"
    try:
        yield f"{url}?prefix={prefix}&partitions={_PARTITIONS}"
    finally:
        await _forget(url, prefix)


async def _forget(url: str, prefix: str) -> None:
    if urlsplit(url).scheme == "redis":
        with redis.Redis.from_url(url) as client:
            for key in list(client.scan_iter(match=f"{{{prefix}*", count=1_000)):
                client.delete(key)
        return
    names = Names(prefix)
    queues = [names.record, names.dead, names.workers, *map(names.partition, range(_PARTITIONS))]
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        for queue in queues:
            await channel.queue_delete(queue)
        await channel.exchange_delete(names.exchange)
