"""The contract, for RabbitMQ: a server that tests share, a prefix for each."""

import aio_pika
import pytest
from aio_pika.exceptions import ChannelNotFoundEntity

from prefactor_core.testing import Transport, TransportContract

NOTHING_LISTENS = "amqp://guest:guest@127.0.0.1:9/"
PARTITIONS = 16


class TestRabbitMQ(TransportContract):
    @pytest.fixture
    def transport(self, amqp_url: str, amqp_prefix: str) -> Transport:
        numbers = [str(number) for number in range(PARTITIONS)]
        names = [
            "partitions",
            "workers",
            "aside",
            "dead",
            "dead.reader",
            *numbers,
            *(f"{number}.{what}" for number in numbers for what in ("owner", "trials", "handover")),
        ]

        async def leftovers() -> list[str]:
            found = []
            async with await aio_pika.connect(amqp_url) as connection:
                for name in names:
                    channel = await connection.channel()
                    try:
                        queue = await channel.declare_queue(f"{amqp_prefix}.{name}", passive=True)
                    except ChannelNotFoundEntity:
                        continue
                    count = queue.declaration_result.message_count
                    found.append(f"{name} with {count} messages" if count else name)
                    await channel.close()
            return found

        return Transport(
            url=f"{amqp_url}?prefix={amqp_prefix}&heartbeat=1",
            unreachable_url=NOTHING_LISTENS,
            dies_within=3.0,
            leftovers=leftovers,
            keeps={"partitions", "workers", "dead", *numbers},
        )
