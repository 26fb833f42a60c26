"""Publishing with confirms: a batch leaves in one piece, and each of its messages is answered for.

The driver's own ``basic_publish`` takes a task and some 80 us a message, since it returns with the confirm.
Here the frames of a batch are written together, and the driver is told which confirms to expect.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from typing import Final, Self

from aiormq.abc import ChannelFrame, FrameType
from aiormq.channel import Channel
from aiormq.exceptions import ChannelInvalidStateError
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.common import FieldValue
from pamqp.header import ContentHeader

from prefactor_rabbitmq.link import Link, close_channel

_PERSISTENT: Final = 2
_IN_ONE_PIECE: Final = 128 * 1024
"""Bytes written together; beyond it what was joined would only be copied around."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message to publish."""

    exchange: str
    routing_key: str
    """The queue, or the key that it is bound by."""
    body: bytes
    headers: Mapping[str, FieldValue] = field(default_factory=dict)
    mandatory: bool = True
    """Whether it is an error if there is no queue for it. If not, it is dropped, and confirmed."""


class ConfirmingChannel:
    """The only writer to a channel in confirm mode."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._writing = asyncio.Lock()
        self._outstanding: set[Confirms] = set()
        self._failure: BaseException | None = None
        channel.closing.add_done_callback(self._on_closed)

    @classmethod
    async def open(cls, link: Link) -> Self:
        """Open a channel with confirms; to be called inside ``bounded``."""
        channel = await link.channel(confirms=True)
        if not isinstance(channel, Channel):
            raise TypeError("the driver made another kind of channel")
        return cls(channel)

    @property
    def closed(self) -> bool:
        """Whether nothing can be published through it any more."""
        return self._channel.is_closed

    async def close(self) -> None:
        """Close it: what is not answered for fails for its publisher."""
        await close_channel(self._channel)

    async def publish(self, batch: Sequence[Outgoing], confirms: "Confirms") -> None:
        """Write messages, in order; ``confirms`` will say which of them arrived."""
        async with self._writing:
            frames: list[FrameType] = []
            ids: list[str] = []
            size = 0
            for message in batch:
                message_id = secrets.token_hex(16)
                frames += self._frames(message, message_id)
                ids.append(message_id)
                size += len(message.body)
                if size >= _IN_ONE_PIECE:
                    await self._write(frames, ids, confirms)
                    frames, ids, size = [], [], 0
            if ids:
                await self._write(frames, ids, confirms)

    def done_with(self, confirms: "Confirms") -> None:
        """Forget a batch, as soon as the broker has answered for all of it."""
        for message_id, future in confirms.futures.items():
            if future.done():
                self._forget(message_id, future)
            else:  # its publisher is gone
                future.add_done_callback(partial(self._forget, message_id))
        self._outstanding.discard(confirms)

    async def _write(self, frames: list[FrameType], ids: list[str], confirms: "Confirms") -> None:
        channel = self._channel
        if channel.is_closed:
            raise ChannelInvalidStateError("the channel is closed")
        await channel.write_queue.put(ChannelFrame.marshall(channel.number, frames))
        # Nothing is awaited from here: the broker numbers messages as they arrive, and so must we.
        self._outstanding.add(confirms)
        for message_id in ids:
            channel.delivery_tag += 1
            future = channel.loop.create_future()
            channel.confirmations[channel.delivery_tag] = future
            # By its id the driver finds what the broker returns as unroutable.
            channel.message_id_delivery_tag[message_id] = channel.delivery_tag
            confirms.futures[message_id] = future
        if self._failure is not None:  # it closed while this batch waited to be written
            self._fail_all(self._failure)

    def _frames(self, message: Outgoing, message_id: str) -> list[FrameType]:
        publish = commands.Basic.Publish(
            exchange=message.exchange, routing_key=message.routing_key, mandatory=message.mandatory
        )
        properties = commands.Basic.Properties(
            content_type="application/json",
            delivery_mode=_PERSISTENT,
            message_id=message_id,
            headers=dict(message.headers) or None,
        )
        room = self._channel.max_content_size
        bodies = [message.body[start : start + room] for start in range(0, len(message.body), room)]
        header = ContentHeader(body_size=len(message.body), properties=properties)
        return [publish, header, *map(ContentBody, bodies)]

    def _forget(self, message_id: str, future: "asyncio.Future[object]") -> None:
        self._channel.message_id_delivery_tag.pop(message_id, None)
        if not future.cancelled():
            future.exception()  # looked at, so that nobody warns of it

    def _on_closed(self, closing: "asyncio.Future[object]") -> None:
        error = None if closing.cancelled() else closing.exception()
        if error is None or isinstance(error, asyncio.CancelledError):
            error = ChannelInvalidStateError("the channel was closed")
        self._failure = error
        self._fail_all(error)

    def _fail_all(self, error: BaseException) -> None:
        for confirms in self._outstanding:
            for future in confirms.futures.values():
                if not future.done():
                    future.set_exception(error)


class Confirms:
    """The broker's answers to one batch."""

    def __init__(self) -> None:
        self.futures: dict[str, asyncio.Future[object]] = {}
        """The answers by message id, in order."""

    @property
    def head(self) -> int:
        """How many messages at the head are confirmed."""
        return sum(1 for _ in takewhile(_is_confirmed, self.futures.values()))

    @property
    def error(self) -> BaseException | None:
        """What became of the first message that will not be confirmed."""
        answered = (future for future in self.futures.values() if future.done() and not future.cancelled())
        return next(filter(None, (future.exception() for future in answered)), None)

    async def wait(self, seconds: float) -> bool:
        """Wait until every message is answered for; return whether that came true in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        for future in self.futures.values():  # answers come in about this order, so that few are waited for
            if not future.done():
                await asyncio.wait((future,), timeout=max(0.0, deadline - loop.time()))
                if not future.done():
                    return False
        return True


def _is_confirmed(future: "asyncio.Future[object]") -> bool:
    return future.done() and not future.cancelled() and future.exception() is None
