"""A relay in front of an emulator that remembers which headers went through it."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

_REQUEST = re.compile(rb"(?:^|\r\n|\}|\n)(GET|POST) (/\S*) HTTP/1\.1\r\n(.*?)\r\n\r\n", re.DOTALL)


class Tap:
    """Relays bytes in both directions, and keeps those of the requests."""

    def __init__(self, target: str) -> None:
        address = urlsplit(target)
        self._host, self._port = address.hostname, address.port
        self._sent: list[bytearray] = []
        self._running: set[asyncio.Task[None]] = set()
        self.url = ""

    def headers(self, name: str) -> list[tuple[str, str | None]]:
        """Return the path of every request so far, with its header of this name."""
        found = []
        for sent in self._sent:
            for match in _REQUEST.finditer(bytes(sent)):
                lines = (line.partition(":") for line in match.group(3).decode().split("\r\n"))
                fields = {key.lower(): value.strip() for key, _, value in lines}
                found.append((match.group(2).decode(), fields.get(name.lower())))
        return found

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection to its end."""
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        sent = bytearray()
        self._sent.append(sent)
        onward_reader, onward = await asyncio.open_connection(self._host, self._port)
        try:
            async with asyncio.TaskGroup() as directions:
                directions.create_task(_relay(reader, onward, sent))
                directions.create_task(_relay(onward_reader, writer, None))
        finally:
            onward.close()
            writer.close()
            self._running.discard(task)

    async def stop(self) -> None:
        """End the connections that are still open."""
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray | None) -> None:
    while data := await reader.read(65_536):
        if kept is not None:
            kept += data
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def tapped(target: str) -> AsyncIterator[Tap]:
    """Put a tap in front of a server for the length of a block."""
    tap = Tap(target)
    server = await asyncio.start_server(tap.serve, "127.0.0.1", 0)
    tap.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield tap
    finally:
        server.close()
        await tap.stop()
        await server.wait_closed()
