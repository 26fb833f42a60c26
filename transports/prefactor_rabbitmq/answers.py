"""Answers to the command that replays operations: a queue at an address that nobody can guess."""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Final

from aiormq.abc import AbstractChannel, DeliveredMessage

from prefactor_core.transport import BrokerError
from prefactor_rabbitmq.link import Link
from prefactor_rabbitmq.names import Names, new_address

ANSWER_SECONDS: Final = 1.0
MOST_ANSWERS: Final = 50_000
"""That the broker keeps for a reader that does not come for them; the oldest make room."""
_PREFETCH: Final = 500


class AnswerBox:
    """Receives the answers to one address."""

    def __init__(self, names: Names, name: str) -> None:
        self._names = names
        self._name = name
        self._link: Link | None = None
        self._channel: AbstractChannel | None = None
        self._address = ""
        self._arrived: deque[DeliveredMessage] = deque()
        self._wake = asyncio.Event()

    async def open(self, link: Link) -> str:
        """Return the address, which lives as long as the connection."""
        if self._link is link and self._is_open:
            return self._address
        address = new_address()
        queue = self._names.answers(address)
        self._arrived.clear()
        async with link.bounded("making a queue for answers"):
            channel = await link.channel()
            await channel.queue_declare(queue, exclusive=True, arguments={"x-max-length": MOST_ANSWERS})
            await channel.basic_qos(prefetch_count=_PREFETCH)
            await channel.basic_consume(queue, self._on_delivery)
        self._link, self._channel, self._address = link, channel, address
        return address

    async def take(self) -> list[bytes]:
        """Return the answers that have arrived, each once; none after a second without any.

        Raises:
            BrokerError: The address was not opened, or went with the connection.
        """
        self._wake.clear()
        if not self._arrived:
            with suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._wake.wait()
        link, channel = self._link, self._channel
        if link is None or channel is None or not self._is_open:
            raise BrokerError(f"{self._name}: the connection for answers was lost")
        taken = list(self._arrived)
        self._arrived.clear()
        if taken:
            async with link.bounded("taking answers"):
                await channel.basic_ack(taken[-1].delivery_tag or 0, multiple=True, wait=False)
        return [message.body for message in taken]

    @property
    def _is_open(self) -> bool:
        link, channel = self._link, self._channel
        return link is not None and link.sound and channel is not None and not channel.is_closed

    async def _on_delivery(self, message: DeliveredMessage) -> None:
        self._arrived.append(message)
        self._wake.set()
