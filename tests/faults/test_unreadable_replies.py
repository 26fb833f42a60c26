"""What a server can send beside large replies: everything becomes a reply, and one line at most."""

import asyncio
import gzip
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import httpx
import pytest

from prefactor_core import HttpClientConfig
from prefactor_core.api.http import HttpApi
from prefactor_core.api.replies import Reply
from prefactor_core.api.wire import BULK_PATH, MAX_BULK_REPLY_BYTES, MAX_REPLY_BYTES

DONE = b'{"status":"success","details":{"status":"active"}}'


class RawApi:
    """Answers every request with the same bytes, and closes the connection.

    Args:
        reply: The bytes.
        trickle: Whether to go on with a blank every tenth of a second.
    """

    def __init__(self, reply: bytes, *, trickle: bool = False) -> None:
        self.reply = reply
        self.trickle = trickle
        self.heads: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.reply)
            while self.trickle:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.1)
            await writer.drain()
        except (OSError, EOFError):
            pass
        finally:
            writer.close()


def http(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    head = "".join(f"{header}\r\n" for header in (f"Content-Length: {len(body)}", *headers))
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode("latin-1") + body


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def asking(serve: Serve, *, timeout: float = 60.0, connect: float = 5.0) -> AsyncIterator[HttpApi]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    config = HttpClientConfig(
        api_url=url, api_token="S3CRET", request_timeout=timeout, connect_timeout=connect
    )
    client = HttpApi(config, lambda: "test@1", connections=2)
    try:
        yield client
    finally:
        await client.close()
        server.close()


async def answer(reply: bytes, path: str = "/api/v1/agent_spans") -> Reply:
    async with asking(RawApi(reply).serve) as client:
        return await client.post(path, b"{}")


async def test_gzip_is_asked_for_and_read() -> None:
    api = RawApi(http(gzip.compress(DONE), "Content-Encoding: gzip"))
    async with asking(api.serve) as client:
        reply = await client.ping()
    assert reply == Reply(200, {"status": "success", "details": {"status": "active"}})
    offered = [line for line in api.heads[0].lower().split(b"\r\n") if line.startswith(b"accept-encoding")]
    assert offered == [b"accept-encoding: gzip"]


async def test_what_cannot_be_decoded_is_a_reply_that_was_not_read() -> None:
    rows = [
        (http(gzip.compress(gzip.compress(DONE)), "Content-Encoding: gzip, gzip"), "was not asked for"),
        (http(DONE, "Content-Encoding: br"), "was not asked for"),
        (http(DONE, "Content-Encoding: deflate"), "was not asked for"),
        (http(DONE, "Content-Encoding: gzip"), "not the gzip data"),
        (http(gzip.compress(DONE)[:-9], "Content-Encoding: gzip"), "end too soon"),
    ]
    for reply, why in rows:
        for status in ("200 OK", "429 Slow Down", "500 Oh", "404 Nothing"):
            found = await answer(reply.replace(b"200 OK", status.encode() + b"\r\nRetry-After: 7"))
            assert found.status == int(status[:3]), why
            assert why in str(found), status
            rest = (found.body, found.empty, found.too_large, found.retry_after)
            assert rest == (None, False, False, 7.0), (why, status)


async def test_bounds_of_a_reply() -> None:
    for path, status, limit in (
        ("/api/v1/agent_spans", "200 OK", MAX_REPLY_BYTES),
        (BULK_PATH, "200 OK", MAX_BULK_REPLY_BYTES),
        (BULK_PATH, "500 Oh", MAX_REPLY_BYTES),
    ):
        for encoding in ("identity", "gzip"):
            for size, too_large in ((limit, False), (limit + 1, True)):
                body = DONE + b" " * (size - len(DONE))
                if encoding == "gzip":
                    body = gzip.compress(body, 1)
                found = await answer(http(body, f"Content-Encoding: {encoding}", status=status), path)
                assert found.too_large is too_large, (path, status, encoding, size)
                assert found.status == int(status[:3])
    # What is announced as too large is not waited for.
    found = await answer(f"HTTP/1.1 200 OK\r\nContent-Length: {MAX_REPLY_BYTES + 1}\r\n\r\n".encode())
    assert found.too_large


async def test_a_body_that_trickles_in_ends_with_the_whole_timeout() -> None:
    api = RawApi(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", trickle=True)
    began = time.monotonic()
    async with asking(api.serve, timeout=1.0) as client:
        found = await client.post(BULK_PATH, b"{}")
    assert found == Reply(None, failure="TimeoutError")
    assert time.monotonic() - began < 300  # it would go on for a day


async def test_nonsense_is_one_printable_line_and_no_exception(caplog: pytest.LogCaptureFixture) -> None:
    for reply in (
        b"HTTP/1.1 \x1b[31mWARNING forged\x1b[0m\r\n\r\n",
        b"WARNING forged \x00" + b"x" * 50_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x" * 200_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{",
        b"HTTP/1.1 302 Found\r\nLocation: http://[\x1b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        http(DONE, "Retry-After: Mon, 01 Jan 99999999999999999999 00:00:00 GMT"),
        http(DONE, "Retry-After: \x7f", "Content-Encoding: \xff"),
        b"",
    ):
        found = await answer(reply)
        assert str(found).isprintable(), reply[:60]
        assert len(str(found)) <= 200, reply[:60]
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == [], reply[:60]
    for status in ("204 No Content", "304 Not Modified", "200 OK"):
        length = 0 if status == "200 OK" else MAX_REPLY_BYTES + 1
        head = f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\nContent-Encoding: br\r\n\r\n"
        assert await answer(head.encode()) == Reply(int(status[:3]), empty=True), (
            "empty, whatever its head says"
        )


async def test_a_token_that_cannot_be_sent_is_not_quoted(caplog: pytest.LogCaptureFixture) -> None:
    config = HttpClientConfig(api_url="http://127.0.0.1:9", api_token="good")
    for token in ("S3CRET\n", "S3CRET\x00", "S3CRETé"):
        client = HttpApi(config, lambda: "test@1", connections=1, token=partial(str, token))
        found = await client.ping()
        await client.close()
        assert (found.status, found.reached) == (None, False), repr(token)
        assert "S3CRET" not in str(found) + caplog.text, repr(token)


async def test_a_path_that_is_too_long_is_a_request_that_cannot_be_made(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with asking(RawApi(http(DONE)).serve) as client:
        found = await client.get("/api/v1/agent_instance/" + "x" * 100_000)
    assert (found.status, found.reached) == (None, False)
    assert caplog.records == []


async def test_cookies_are_not_kept() -> None:
    api = RawApi(http(DONE, *(f"Set-Cookie: a{number}=b; Path=/" for number in range(100))))
    async with asking(api.serve) as client:
        for _ in range(3):
            assert (await client.ping()).status == 200
    assert len({len(head) for head in api.heads}) == 1
    assert b"cookie" not in b"".join(api.heads).lower()


async def test_what_was_not_foreseen_is_said_once_until_a_request_works(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("nobody\nthought of this")

    async with asking(RawApi(http(DONE)).serve) as client:
        for _ in range(2):
            with monkeypatch.context() as patch:
                patch.setattr(httpx.AsyncClient, "stream", fails)
                for _ in range(50):
                    assert await client.ping() == Reply(None, failure="RuntimeError")
            assert (await client.ping()).status == 200
    told = [record for record in caplog.records if record.name == "prefactor_core.api"]
    assert [bool(record.exc_info) for record in told] == [True, False] * 2
    assert "50 failed" in told[1].getMessage()


async def test_a_large_reply_that_waits_for_another_keeps_its_time() -> None:
    """Beyond 8 MiB one reply at a time is read; the time that one waits for another is not its own."""
    whole = 8.0
    size = 12 * 1024 * 1024
    rest = [asyncio.Event(), asyncio.Event()]
    turns = iter(rest)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        go_on = next(turns)
        body = b'{"status":"success","text":"' + b"x" * (size - 30) + b'"}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        writer.write(body[:-100])
        await writer.drain()
        await go_on.wait()
        writer.write(body[-100:])
        await writer.drain()
        writer.close()

    async with asking(serve, timeout=whole - 1, connect=1) as client:
        both = [asyncio.create_task(client.post(BULK_PATH, b"{}")) for _ in range(2)]
        for event in rest:
            await asyncio.sleep(whole * 0.6)
            event.set()
        replies = await asyncio.gather(*both)
    assert [reply.status for reply in replies] == [200, 200]
