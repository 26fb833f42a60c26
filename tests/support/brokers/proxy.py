"""A proxy that breaks connections the way networks do."""

import asyncio
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from enum import Enum
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.support.ports import free_port

_CHUNK = 65_536
_TURNS = 3  # of the loop, until a reader in it has a piece: else it finds the next one joined to it


class _Mode(Enum):
    NORMAL = "everything is passed on"
    SWALLOW = "nothing is passed on"
    SLICE_REPLIES = "replies are passed on byte by byte"


class _Connection:
    """A client's connection and the one to the target that belongs to it."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.writers = [client]
        self.task: asyncio.Task[None] | None = None
        self.has_a_hole = False

    def abort(self) -> None:
        """End both ends with RST instead of FIN."""
        for writer in self.writers:
            wire: socket.socket | None = writer.get_extra_info("socket")
            with suppress(OSError):  # it may be closed already
                if wire is not None:
                    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class Proxy:
    """A TCP proxy in the test's own event loop: ``async with Proxy("127.0.0.1", 6379) as proxy``.

    It is in one mode at a time, for old and new connections alike, and starts with ``normal``. It can also
    ``refuse`` new connections or ``reset`` those that exist, in any mode.
    """

    def __init__(self, target_host: str, target_port: int) -> None:
        self._target = (target_host, target_port)
        self._mode = _Mode.NORMAL
        self._listener: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self.host = "127.0.0.1"
        self.port = 0
        self.accepted = 0  # connections since the start

    @classmethod
    def before(cls, url: str) -> Self:
        """Return a proxy in front of the server with this address."""
        parts = urlsplit(url)
        if parts.hostname is None or parts.port is None:
            raise ValueError(f"no host and port in {url}")
        return cls(parts.hostname, parts.port)

    def url(self, url: str) -> str:
        """Return the address of the target, with the proxy in the target's place."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{user}{at}{self.host}:{self.port}").geturl()

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    async def start(self) -> None:
        """Listen; on the same port as before, if there was one."""
        if self._listener is None:
            self.port = self.port or free_port()
            self._listener = await asyncio.start_server(self._accept, self.host, self.port)

    async def close(self) -> None:
        """End everything, and wait until it has ended."""
        self.refuse()
        await self.reset()
        await asyncio.sleep(0.1)  # what was being accepted then is aborted, and its socket closes after that

    async def normal(self) -> None:
        """Accept again, and pass everything on.

        Connections that have lost bytes are reset: a stream never goes on behind a hole.
        """
        self._mode = _Mode.NORMAL
        await self._end(connection for connection in self._connections if connection.has_a_hole)
        await self.start()

    async def reset(self) -> None:
        """End all connections with RST, towards both sides."""
        await self._end(self._connections)

    def swallow(self) -> None:
        """Accept and read, but pass nothing on, in neither direction, and the end of a stream neither."""
        self._mode = _Mode.SWALLOW

    def slice_replies(self) -> None:
        """Pass replies on in pieces of one byte."""
        self._mode = _Mode.SLICE_REPLIES

    def refuse(self) -> None:
        """Accept no new connections; those that exist go on. ``normal`` or ``start`` accepts again."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Not a coroutine: asyncio would make a task of it that nobody owns.
        if self._listener is None:  # it came in as the listener closed
            _Connection(writer).abort()
            return
        self.accepted += 1
        connection = _Connection(writer)
        self._connections.add(connection)
        connection.task = asyncio.create_task(self._serve(connection, reader), name="proxy-connection")

    async def _serve(self, connection: _Connection, client: asyncio.StreamReader) -> None:
        try:
            server, writer = await asyncio.open_connection(*self._target)
            connection.writers.append(writer)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(connection, client, writer, replies=False))
                pumps.create_task(self._pump(connection, server, connection.writers[0], replies=True))
            for writer in connection.writers:
                writer.close()
                await writer.wait_closed()
        except* OSError:  # one side is gone, and so the other goes
            connection.abort()
        finally:
            self._connections.discard(connection)
            for writer in connection.writers:
                writer.close()

    async def _pump(
        self,
        connection: _Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        replies: bool,
    ) -> None:
        while piece := await reader.read(_CHUNK):
            while piece:
                size = 1 if replies and self._mode is _Mode.SLICE_REPLIES else len(piece)
                if self._mode is _Mode.SWALLOW:
                    connection.has_a_hole = True
                else:
                    writer.write(piece[:size])
                    await writer.drain()
                    for _ in range(_TURNS):
                        await asyncio.sleep(0)
                piece = piece[size:]
        if self._mode is _Mode.SWALLOW:
            connection.has_a_hole = True
        else:
            writer.write_eof()

    async def _end(self, connections: Iterable[_Connection]) -> None:
        ending = list(connections)
        tasks = [connection.task for connection in ending if connection.task is not None]
        for connection in ending:
            connection.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the sockets close in the loop's next turn
