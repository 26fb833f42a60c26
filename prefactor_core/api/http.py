"""The HTTP client: one request in, one reply out, never an exception of the network.

The only module that imports httpx, whose types appear in no signature.
"""

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final

import httpx
from pydantic_core import from_json

from prefactor_core.api.body import ACCEPTED_ENCODING, BodyError, Decoder
from prefactor_core.api.replies import Reply
from prefactor_core.api.wire import BULK_PATH, MAX_BULK_REPLY_BYTES, MAX_REPLY_BYTES, PING_PATH
from prefactor_core.config import HttpClientConfig
from prefactor_core.texts import one_line

logger = logging.getLogger("prefactor_core.api")

_LONGEST_RETRY_AFTER: Final = 600.0
"""Seconds that a server can make us wait with one header."""
_WITHOUT_BODY: Final = frozenset({204, 304})
"""Statuses of replies that have no body, whatever length they name (RFC 9110, 6.4.1)."""
_LONGEST_FAILURE: Final = 200
"""Characters of what an error of the network says."""


class HttpApi:
    """Speaks HTTP to one API with one token.

    ``sdk_header`` is asked at each request, since an integration may add itself late; ``token`` too, where
    the configuration's can change.
    """

    def __init__(
        self,
        config: HttpClientConfig,
        sdk_header: Callable[[], str],
        connections: int,
        token: Callable[[], str] | None = None,
    ) -> None:
        self._sdk_header = sdk_header
        self._token = token or (lambda: config.api_token)
        # httpx times each read; a reply that trickles in resets that clock, so the whole has a bound too.
        self._whole_timeout = config.connect_timeout + config.request_timeout
        # Each of them can fill 64 MiB, so one of all requests at a time is read beyond the small bound.
        self._one_large = asyncio.Lock()
        self._unforeseen = 0
        self._client = httpx.AsyncClient(
            base_url=config.api_url.rstrip("/"),
            headers={
                "Content-Type": "application/json",
                "Accept": "application/json",
                "Accept-Encoding": ACCEPTED_ENCODING,
            },
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # they would be kept, however many
            timeout=httpx.Timeout(config.request_timeout, connect=config.connect_timeout),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            follow_redirects=False,
        )

    async def post(self, path: str, body: bytes, sdk_header: str | None = None) -> Reply:
        """Send a write, in the name of ``sdk_header`` where others made it."""
        return await self._request("POST", path, body, sdk_header)

    async def get(self, path: str) -> Reply:
        """Read something."""
        return await self._request("GET", path, None)

    async def ping(self) -> Reply:
        """Ask the API whether it is there and takes the token."""
        return await self.get(PING_PATH)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _request(
        self, method: str, path: str, body: bytes | None, sdk_header: str | None = None
    ) -> Reply:
        headers = {
            "Authorization": f"Bearer {self._token()}",
            "X-Prefactor-SDK": sdk_header or self._sdk_header(),
        }
        limit = MAX_BULK_REPLY_BYTES if path == BULK_PATH else MAX_REPLY_BYTES
        try:
            async with (
                asyncio.timeout(self._whole_timeout) as bound,
                self._client.stream(method, path, content=body, headers=headers) as response,
            ):
                reply = await self._read(response, limit if response.is_success else MAX_REPLY_BYTES, bound)
        except (httpx.LocalProtocolError, httpx.InvalidURL, UnicodeError) as error:
            # What it says quotes our own headers.
            return Reply(None, failure=f"{type(error).__name__}: the request cannot be made", reached=False)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
            return Reply(None, failure=_describe(error), reached=False)
        except (httpx.HTTPError, TimeoutError) as error:
            return Reply(None, failure=_describe(error))
        except Exception as error:
            # Nothing that a library meets on the way may end a sender; what it says may quote anything.
            self._unforeseen += 1
            if self._unforeseen == 1:
                logger.exception(
                    "unexpected error in a request; further ones are not logged until a request succeeds"
                )
            return Reply(None, failure=type(error).__name__)
        self._works_again()
        return reply

    async def _read(self, response: httpx.Response, limit: int, bound: asyncio.Timeout) -> Reply:
        """Read a reply, or as much of it as it takes to see that its body cannot be read."""
        headers = response.headers
        retry_after = _retry_after(headers.get("Retry-After"))
        content = bytearray()
        try:
            length = None if response.status_code in _WITHOUT_BODY else headers.get("Content-Length")
            decoder = Decoder(headers.get("Content-Encoding", ""), length, limit)
            async with AsyncExitStack() as alone:
                async for chunk in response.aiter_raw():
                    for piece in decoder.decode(chunk):
                        if len(content) <= MAX_REPLY_BYTES < len(content) + len(piece):
                            left = (bound.when() or 0.0) - asyncio.get_running_loop().time()
                            bound.reschedule(None)  # waiting for another reply is nobody's failure
                            await alone.enter_async_context(self._one_large)
                            bound.reschedule(asyncio.get_running_loop().time() + left)
                        content += piece
                        await asyncio.sleep(0)  # a little that came can be much
                decoder.finish()
                body = _json_object(content)
                empty = not content
        except BodyError as error:
            return Reply(
                response.status_code, retry_after=retry_after, failure=str(error), too_large=error.too_large
            )
        return Reply(response.status_code, body=body, empty=empty, retry_after=retry_after)

    def _works_again(self) -> None:
        if self._unforeseen > 1:
            logger.warning("requests succeed again; %d failed with an unexpected error", self._unforeseen)
        self._unforeseen = 0


def _describe(error: Exception) -> str:
    words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    for cause in _causes(error):
        # Nobody knows these by the names that httpx gives them.
        if isinstance(cause, socket.gaierror):
            words = f"the host's name does not resolve: {cause.strerror}"
        elif isinstance(cause, ssl.SSLError):
            words = f"TLS fails: {cause}"
        elif isinstance(cause, ConnectionRefusedError):
            words = "the connection is refused"
    # Errors of the protocol quote what the other side has sent.
    return one_line(words.rstrip("."), _LONGEST_FAILURE)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield what led to an error, of several addresses that failed the first."""
    cause = error.__cause__ or error.__context__
    while cause is not None:
        yield cause
        cause = (
            cause.exceptions[0]
            if isinstance(cause, BaseExceptionGroup)
            else cause.__cause__ or cause.__context__
        )


def _json_object(content: bytes | bytearray) -> dict[str, object] | None:
    try:
        parsed = from_json(content)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None


def _retry_after(header: str | None) -> float:
    """Return the header in seconds: it is a number of them, or a date (RFC 9110, 10.2.3)."""
    if not header:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    # Written so that NaN counts as nothing.
    return min(seconds, _LONGEST_RETRY_AFTER) if seconds > 0 else 0.0
