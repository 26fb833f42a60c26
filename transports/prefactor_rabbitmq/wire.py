"""The socket under a connection: it knows when the broker was last heard, and it can be cut.

It also tells why no connection came about: what the other end said says more than the driver's error.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

import pamqp.frame
from aiormq.connection import SSLContextProvider, TransportFactory
from pamqp import commands
from pamqp.exceptions import PAMQPException
from yarl import URL

from prefactor_rabbitmq.errors import describe

_READ_BUFFER: Final = 512 * 1024
_GREETING: Final = 16 * 1024
"""Bytes of what the broker says first that are kept: they tell what it is, and why it lets nobody in."""
_TLS_RECORDS: Final = (b"\x15\x03", b"\x16\x03")
"""How an alert and a greeting of TLS begin."""
_LOGIN_REFUSED: Final = 403
_NOT_ALLOWED: Final = 530


class Wire(TransportFactory):
    """Makes one socket for the driver, and keeps hold of it.

    The driver itself notices a silent broker only after three heartbeats, when the partitions have long been
    given to somebody else, and its way to close a connection waits for the peer.
    """

    def __init__(self, clock: Callable[[], float], on_lost: Callable[[], None]) -> None:
        self.heard = clock()
        self.opening = True
        self.on_lost = on_lost
        self._said = bytearray()  # what came first, while it is opening
        self._tls = False
        self._clock = clock
        self._transport: asyncio.Transport | None = None

    async def create(self, url: URL, **kwargs: object) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect; called by the driver."""
        loop = asyncio.get_running_loop()
        provider = kwargs.get("ssl_context_provider")
        if not isinstance(provider, SSLContextProvider):
            raise TypeError("the driver gave no way to a TLS context")
        self._tls = url.scheme == "amqps"
        context = await provider.get_context() if self._tls else None
        reader = asyncio.StreamReader(limit=_READ_BUFFER, loop=loop)
        self._transport, protocol = await loop.create_connection(
            lambda: _Listener(reader, self), url.host or "", url.port or 0, ssl=context
        )
        return reader, asyncio.StreamWriter(self._transport, protocol, reader, loop)

    def hear(self, data: bytes) -> None:
        """Take note of what the broker says."""
        self.heard = self._clock()
        if self.opening:
            self._said += data[: _GREETING - len(self._said)]

    def opened(self) -> None:
        """Keep no more of what comes: the connection has been made."""
        self.opening = False
        self._said.clear()

    def cut(self) -> None:
        """Drop the socket at once, with whatever is still to be written to it."""
        if self._transport is not None:
            self._transport.abort()

    def why_not_opened(self, error: BaseException) -> str:
        """Say why a broker cannot be used, and what to look at."""
        reason = describe(error)
        if self._transport is None:
            return _no_socket(reason, tls=self._tls)
        if self._said.startswith(_TLS_RECORDS):
            return "it speaks TLS on this port: the scheme is amqps://"
        if not self._said:
            hint = "" if self._tls else ", and does it speak TLS (amqps://)"
            return (
                f"it took the connection and did not answer as RabbitMQ does ({reason}); "
                f"is the port right{hint}?"
            )
        frames = list(_frames(bytes(self._said)))
        for frame in frames:
            if isinstance(frame, commands.Connection.Close):
                return _closed(frame.reply_code, frame.reply_text or "no reason was given")
        if not any(isinstance(frame, commands.Connection.Start) for frame in frames):
            return "it answered something that is no AMQP 0-9-1; is the port right?"
        return reason


class _Listener(asyncio.StreamReaderProtocol):
    def __init__(self, reader: asyncio.StreamReader, wire: Wire) -> None:
        super().__init__(reader)
        self._wire = wire

    def data_received(self, data: bytes) -> None:
        self._wire.hear(data)
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._wire.on_lost()


def _no_socket(reason: str, *, tls: bool) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        why = reason.partition("certificate verify failed: ")[2].partition(" (_ssl")[0].rstrip(".") or reason
        return (
            f"it has a certificate that is not accepted: {why}. It has to be valid, made for the host in the "
            "URL, and of an authority that is trusted here (SSL_CERT_FILE names others)"
        )
    if "SSL" in reason:
        return f"it speaks no TLS on this port ({reason}); is the port right, or is the scheme amqp://?"
    hint = " Does it speak TLS on this port?" if tls else ""
    return f"it cannot be reached; is it running, and are host and port right?{hint} ({reason})"


def _closed(code: int | None, text: str) -> str:
    if code == _LOGIN_REFUSED:
        return f"it does not accept the user and password of the URL ({text})"
    if code == _NOT_ALLOWED and "not found" in text:
        return f"it has no virtual host of the name in the URL's path ({text})"
    if code == _NOT_ALLOWED and "access to vhost" in text:
        return f"it does not let this user into the virtual host; grant permissions there ({text})"
    return f"it closed the connection: {text}"


def _frames(data: bytes) -> Iterator[object]:
    """Return the AMQP frames at the beginning of something."""
    while data:
        try:
            consumed, _, frame = pamqp.frame.unmarshal(data)
        except PAMQPException:
            return
        yield frame
        data = data[consumed:]
