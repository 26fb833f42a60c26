"""The HTTP client: one request in, one reply out, never an exception of the network.

The only module that imports httpx, whose types appear in no signature.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Final

import httpx
from pydantic_core import from_json

from prefactor_core.api.replies import Reply
from prefactor_core.api.wire import PING_PATH
from prefactor_core.config import HttpClientConfig

logger = logging.getLogger("prefactor_core.api")

_LONGEST_RETRY_AFTER: Final = 600.0
"""Seconds that a server can make us wait with one header."""


class HttpApi:
    """Speaks HTTP to one API with one token.

    Args:
        config: URL, token and timeouts.
        sdk_header: Returns the ``X-Prefactor-SDK`` header; asked at each request, since an integration may
            add itself late.
        connections: Connections kept at the most.
        token: Returns the token of the moment, where it can change; else it is the configuration's.
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
        self._client = httpx.AsyncClient(
            base_url=config.api_url.rstrip("/"),
            headers={
                "Content-Type": "application/json",
                "Accept": "application/json",
            },
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
        try:
            async with asyncio.timeout(self._whole_timeout):
                response = await self._client.request(method, path, content=body, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
            return Reply(None, failure=_describe(error), reached=False)
        except (httpx.HTTPError, TimeoutError) as error:
            return Reply(None, failure=_describe(error))
        except Exception as error:
            # Nothing that a library meets on the way may end a sender; what it says may quote anything.
            logger.exception("a request failed in a way that was not foreseen")
            return Reply(None, failure=type(error).__name__)
        content = response.content
        return Reply(
            response.status_code,
            body=_json_object(content),
            empty=not content,
            retry_after=_retry_after(response.headers.get("Retry-After")),
        )


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _json_object(content: bytes) -> dict[str, object] | None:
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
        except ValueError:
            return 0.0
    # Written so that NaN counts as nothing.
    return min(seconds, _LONGEST_RETRY_AFTER) if seconds > 0 else 0.0
