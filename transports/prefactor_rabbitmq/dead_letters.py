"""The end that looks after dead letters.

What one reader has got is hidden from all others. So there is one at a time: the next one waits until that
one's end is disconnected.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Final

from aiormq.abc import AbstractChannel, DeliveredMessage

from prefactor_core.transport import BrokerError, DeadLetterEnd, DeadLetterMessage
from prefactor_rabbitmq.answers import AnswerBox
from prefactor_rabbitmq.connector import Connector
from prefactor_rabbitmq.inbox import fingerprint
from prefactor_rabbitmq.link import CLOSE_SECONDS, Link, close_channel, get_message, queue_state
from prefactor_rabbitmq.names import Names

logger = logging.getLogger("prefactor_rabbitmq")

WAIT_SECONDS: Final = 30.0
"""For another reader to finish."""
LOOK_SECONDS: Final = 5.0
"""For which seeing that dead letters are read is enough. Then the lock is tried: that may be out of date."""
RETURN_SECONDS: Final = 5.0
"""For dead letters to be back whose reader has no lock any more."""
_LOOK_PAUSE: Final = 0.1
_LOCKED: Final = 0.5
"""Seconds between two attempts that the broker refuses: it logs an error for each."""
_AT_ONCE: Final = 16
"""Released or removed together: of more than 32 in flight the broker forgets the order, or some."""
_ROUNDS: Final = 5
_LOOKS: Final = 100
_PAUSE: Final = 0.01


class RabbitDeadLetterEnd(DeadLetterEnd):
    """Gets dead letters one by one; those not removed go back when the channel closes.

    A quorum queue takes many messages back in no order at all. Dead letters have their times with them, and a
    reader that finds some that came back puts all of them in order before anything is shown.
    """

    def __init__(self, connector: Connector, names: Names) -> None:
        self._connector = connector
        self._queue = names.dead
        self._reader = _Reader(names)
        self._answers = AnswerBox(names, connector.name)
        self._link: Link | None = None
        self._channel: AbstractChannel | None = None
        self._tags: dict[str, int] = {}
        self._got = 0  # dead letters that are neither removed nor back
        self._elsewhere = 0  # dead letters that others have got, as far as that shows
        self._unheard = 0  # removals that the queue may not have come to
        self._lock = asyncio.Lock()

    async def read(self) -> AsyncIterator[DeadLetterMessage]:
        """Yield what is there now. Reading again begins at the front: ``remove`` knows only what that yields.

        Raises:
            BrokerError: The broker is unavailable, or another reader has not finished within half a minute.
        """
        link = await self._connector.link()
        await self._reader.acquire(link)
        async with self._lock:
            channel = await self._open(link)
            left = await self._count(link)
            message = await self._get(link, channel) if left else None
            if message is not None and message.redelivered:
                # What came back is handed out before what never left.
                left = await self._tidy(link, channel, message)
                message = await self._get(link, channel)
        while message is not None:
            left -= 1
            self._got += 1
            key = fingerprint(message)
            self._tags[key] = message.delivery_tag or 0
            yield DeadLetterMessage(message.body, _number(message, "partition"), key)
            message = await self._get(link, channel) if left else None

    async def count(self) -> int:
        """Return how many are there to be read. It never waits for a reader.

        It does not see what somebody is reading now: that is counted again once the reader is disconnected.
        """
        return await self._count(await self._connector.link())

    async def remove(self, dead_letters: Sequence[DeadLetterMessage]) -> None:
        """Acknowledge dead letters of the last reading, and hear that the broker is still there."""
        async with self._lock:
            link, channel = self._link, self._channel
            if link is None or channel is None or channel.is_closed or not link.sound:
                raise BrokerError(
                    f"{self._connector.name}: the connection was lost since the dead letters were read"
                )
            for start in range(0, len(dead_letters), _AT_ONCE):
                async with link.bounded("removing dead letters"):
                    for dead_letter in dead_letters[start : start + _AT_ONCE]:
                        tag = self._tags.pop(str(dead_letter.receipt), None)
                        if tag is not None:
                            await channel.basic_ack(tag, wait=False)
                            self._got -= 1
                            self._unheard += 1
                    if self._unheard >= _AT_ONCE:
                        await self._hear_of_removals(channel)
                        self._unheard = 0
            async with link.bounded("removing dead letters"):
                # An acknowledgement has no answer; this call, behind it on the same channel, does.
                await channel.basic_qos(prefetch_count=0)

    async def open_answers(self) -> str:
        """Return the address of a queue that lives as long as this end's connection."""
        return await self._answers.open(await self._connector.link())

    async def answers(self) -> list[bytes]:
        """Return what has arrived; a lost connection took the queue with it."""
        return await self._answers.take()

    async def disconnect(self) -> None:
        """Close the channel: what was read and not removed goes back, in its order. Then let others read."""
        async with self._lock:
            link, channel, self._channel = self._link, self._channel, None
            self._tags.clear()
            try:
                if link is not None and channel is not None and link.sound:
                    # The lock goes with the connection. Before that, all must be back that others are to see.
                    with suppress(BrokerError):
                        async with link.bounded("releasing dead letters", CLOSE_SECONDS):
                            await close_channel(channel)
            finally:
                await self._connector.disconnect()

    async def _open(self, link: Link) -> AbstractChannel:
        async with link.bounded("closing the dead letters"):
            if self._channel is not None and self._link is link:
                await close_channel(self._channel)
            self._tags.clear()
            self._got = self._unheard = 0
        self._elsewhere = await self._reader.wait_for_returns(link)
        async with link.bounded("opening the dead letters"):
            self._channel, self._link = await link.channel(), link
            return self._channel

    async def _hear_of_removals(self, channel: AbstractChannel) -> None:
        """Wait until the queue has removed what was acknowledged; to be called inside ``bounded``.

        Of more acknowledgements than the queue takes at a time a channel keeps some back, and forgets them
        when it closes: what they were for would be read again.
        """
        while True:
            state = await queue_state(channel, self._queue)
            # Each dead letter that was got and is not removed counts as a consumer.
            if state.consumers <= self._got + self._elsewhere:
                return
            await asyncio.sleep(_PAUSE)

    async def _count(self, link: Link) -> int:
        return (await link.look(self._queue, "counting dead letters")).ready

    async def _tidy(self, link: Link, channel: AbstractChannel, message: DeliveredMessage | None) -> int:
        """Take all dead letters, and release them in order, with those that come in meanwhile."""
        count = 0
        for _ in range(_ROUNDS):
            found: list[tuple[int, int]] = []
            while message is not None:
                found.append((_number(message, "at"), message.delivery_tag or 0))
                message = await self._get(link, channel)
            await self._release(link, channel, [tag for _, tag in sorted(found)])
            count = await self._count(link)
            if count <= len(found):
                break
            message = await self._get(link, channel)
        return count

    async def _release(self, link: Link, channel: AbstractChannel, tags: list[int]) -> None:
        for start in range(0, len(tags), _AT_ONCE):
            end = min(start + _AT_ONCE, len(tags))
            async with link.bounded("putting dead letters in order"):
                for tag in tags[start:end]:
                    await channel.basic_nack(tag, requeue=True, wait=False)
            for _ in range(_LOOKS):  # it does not say when it has done so
                if await self._count(link) >= end:
                    break
                await asyncio.sleep(_PAUSE)

    async def _get(self, link: Link, channel: AbstractChannel) -> DeliveredMessage | None:
        async with link.bounded("reading dead letters"):
            return await get_message(channel, self._queue)


class _Reader:
    """The right to read the dead letters: an exclusive queue, which only one connection can have."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._held_by: Link | None = None

    async def acquire(self, link: Link) -> None:
        """Wait for other readers, and be the only one for as long as the connection lasts.

        Raises:
            BrokerError: Also if they have not finished in time.
        """
        if self._held_by is link:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + WAIT_SECONDS
        looking_until = loop.time() + LOOK_SECONDS
        while True:
            pause = _LOOK_PAUSE
            # Nearly every reader shows without an attempt, which the broker would log as an error.
            if loop.time() >= looking_until or not await self._readings(link):
                if await link.lock(self._names.dead_reader, "locking the dead letters"):
                    self._held_by = link
                    return
                pause = _LOCKED
                looking_until = loop.time() + LOOK_SECONDS
            if loop.time() + pause > deadline:
                raise BrokerError(
                    f"another command is reading the dead letters of {link.name}; "
                    "try again when it has finished"
                )
            await asyncio.sleep(pause)

    async def wait_for_returns(self, link: Link) -> int:
        """Wait until all is back that somebody has read, such as a reader that was killed just now.

        Its lock may go a moment before its dead letters are back.

        Returns:
            How many are not back, by what the broker says. While the node is down that their reader was
            connected to, it says so of dead letters that are back, too.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + RETURN_SECONDS
        while readings := await self._readings(link):
            if loop.time() > deadline:
                logger.warning(
                    "%s: %d dead letters may be missing: another reader holds them without the lock, or its "
                    "node is down",
                    link.name,
                    readings,
                )
                break
            await asyncio.sleep(_LOOK_PAUSE)
        return readings

    async def _readings(self, link: Link) -> int:
        """Return how many dead letters are with readers."""
        return (await link.look(self._names.dead, "looking for readers of the dead letters")).consumers


def _number(message: DeliveredMessage, header: str) -> int:
    value = (message.header.properties.headers or {}).get(header)
    return value if isinstance(value, int) else 0
