"""The socket under a connection: it knows when the broker was last heard, and it can be cut."""

import asyncio
from collections.abc import Callable
from typing import Final

from aiormq.connection import SSLContextProvider, TransportFactory
from yarl import URL

_READ_BUFFER: Final = 512 * 1024
_GREETING: Final = 16 * 1024
"""Bytes of what the broker says first that are kept: they tell what it is, and why it lets nobody in."""


class Wire(TransportFactory):
    """Makes one socket for the driver, and keeps hold of it.

    The driver itself notices a silent broker only after three heartbeats, when the partitions have long been
    given to somebody else, and its way to close a connection waits for the peer.

    Args:
        clock: Steady clock, in seconds.
        on_lost: Called when the socket is gone.
    """

    def __init__(self, clock: Callable[[], float], on_lost: Callable[[], None]) -> None:
        self.heard = clock()
        self.closed = False
        self.said = bytearray()
        """What came first; nothing once ``forget`` was called."""
        self._clock = clock
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._opening = True

    @property
    def connected(self) -> bool:
        """Whether there has been a socket, with TLS if that was asked for."""
        return self._transport is not None

    async def create(self, url: URL, **kwargs: object) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect; called by the driver."""
        loop = asyncio.get_running_loop()
        provider = kwargs.get("ssl_context_provider")
        if not isinstance(provider, SSLContextProvider):
            raise TypeError("the driver gave no way to a TLS context")
        context = await provider.get_context() if url.scheme == "amqps" else None
        reader = asyncio.StreamReader(limit=_READ_BUFFER, loop=loop)
        protocol = _Listener(reader, loop, self._hear, self._lose)
        self._transport, _protocol = await loop.create_connection(
            lambda: protocol, url.host or "", url.port or 0, ssl=context
        )
        return reader, asyncio.StreamWriter(self._transport, protocol, reader, loop)

    def cut(self) -> None:
        """Drop the socket at once, with whatever is still to be written to it."""
        if self._transport is not None:
            self._transport.abort()

    def forget(self) -> None:
        """Keep no more of what comes: the connection has been made."""
        self._opening = False
        self.said.clear()

    def _hear(self, data: bytes) -> None:
        self.heard = self._clock()
        if self._opening:
            self.said += data[: _GREETING - len(self.said)]

    def _lose(self) -> None:
        self.closed = True
        self._on_lost()


class _Listener(asyncio.StreamReaderProtocol):
    def __init__(
        self,
        reader: asyncio.StreamReader,
        loop: asyncio.AbstractEventLoop,
        heard: Callable[[bytes], None],
        lost: Callable[[], None],
    ) -> None:
        super().__init__(reader, loop=loop)
        self._heard = heard
        self._lost = lost

    def data_received(self, data: bytes) -> None:
        self._heard(data)
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._lost()
