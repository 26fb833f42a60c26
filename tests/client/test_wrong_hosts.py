"""What an agent's author reads in the log where ``api_url`` leads to no API."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.client.load import client_for, nowhere
from tests.support.fleet import until

_PAGE = b"HTTP/1.1 %b\r\nContent-Type: text/html\r\nContent-Length: 15\r\n\r\n<h1>Hello!</h1>"
_CHECK_NETWORK = "; check scheme, host and port in api_url (PREFACTOR_API_URL), and the network"
_STRANGER = (
    " without the API's JSON; this does not look like the Prefactor API: check api_url (PREFACTOR_API_URL)"
)


@asynccontextmanager
async def website(status: bytes) -> AsyncIterator[int]:
    """Answer every request with a page; yield the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            writer.write(_PAGE % status)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def said_of(url: str, caplog: pytest.LogCaptureFixture) -> str:
    """Return the line about a URL's API, without its beginning."""
    caplog.clear()
    client = client_for(url)
    await client.initialize()
    await until(lambda: any("is unavailable" in line for line in caplog.messages))
    await client.close(0)
    (line,) = [line for line in caplog.messages if "is unavailable" in line]
    shown = url.replace("me:secret@", "")
    return line.removeprefix(f"prefactor: the API at {shown} is unavailable, and everything waits for it: ")


async def test_nothing_listens(caplog: pytest.LogCaptureFixture) -> None:
    url = nowhere().replace("//", "//me:secret@")
    assert await said_of(url, caplog) == f"the connection is refused{_CHECK_NETWORK}"
    assert "secret" not in caplog.text


async def test_the_name_does_not_resolve(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    told = await said_of("https://app.prefactorai.example", caplog)
    assert told == f"the host's name does not resolve: Name or service not known{_CHECK_NETWORK}"


async def test_the_port_speaks_no_tls(caplog: pytest.LogCaptureFixture) -> None:
    async with website(b"200 OK") as port:
        told = await said_of(f"https://127.0.0.1:{port}", caplog)
    assert told.startswith("TLS fails: [SSL: WRONG_VERSION_NUMBER]")
    assert told.endswith(_CHECK_NETWORK)


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found"])
async def test_a_website_answers(caplog: pytest.LogCaptureFixture, status: str) -> None:
    async with website(status.encode()) as port:
        told = await said_of(f"http://127.0.0.1:{port}", caplog)
    assert told == f"HTTP {status[:3]}{_STRANGER}"
