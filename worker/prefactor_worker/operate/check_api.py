"""What is wrong with the API at a URL, or with the token for it."""

import asyncio
import socket
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from prefactor_core.api.http import HttpApi
from prefactor_core.api.replies import Reply
from prefactor_core.client import CORE_SDK_HEADER_ENTRY
from prefactor_core.config import HttpClientConfig
from prefactor_core.texts import one_line, plain_url
from prefactor_worker.operate.findings import Finding, Findings, Level
from prefactor_worker.options import API_URL_VARIABLE
from prefactor_worker.token import TOKEN_VARIABLE

_CONNECT_SECONDS: Final = 5.0
_REQUEST_SECONDS: Final = 15.0
_NO_TOKEN: Final = "none-was-given"  # noqa: S105 -- an API refuses it
_NO_TLS: Final = "WRONG_VERSION_NUMBER"
_TLS_WORDS: Final = ("SSL", "TLS", "CERTIFICATE")


async def check_api(url: str | None, token: str | None, token_problem: str | None) -> list[Finding]:
    """Ask the API, if one is given, whether it is there and takes the token, and return what is found.

    Where a token was named and there is none, ``token_problem`` says why.

    Raises:
        ValidationError: The URL is malformed.
    """
    findings = Findings("API")
    if url is None:
        findings.add(Level.NOT_GIVEN, f"an API: name one with --api-url, or set {API_URL_VARIABLE}")
        return findings.all
    config = HttpClientConfig(
        api_url=url,
        api_token=token or _NO_TOKEN,
        connect_timeout=_CONNECT_SECONDS,
        request_timeout=_REQUEST_SECONDS,
    )
    if token_problem is not None:
        findings.problem(token_problem)
    api = HttpApi(config, lambda: CORE_SDK_HEADER_ENTRY, connections=1)
    try:
        reply = await api.ping()
    finally:
        await api.close()
    if reply.status is None:
        findings.problem(await _unreachable(config.api_url, reply))
    else:
        _judge(findings, plain_url(config.api_url), reply, token)
    if token is None and token_problem is None:
        missing = f"the token: name a file with --api-token-file, or set {TOKEN_VARIABLE}"
        findings.add(Level.NOT_GIVEN, missing)
    return findings.all


def _judge(findings: Findings, url: str, reply: Reply, token: str | None) -> None:
    status = reply.status or 0
    succeeded = 200 <= status < 300 and reply.body is not None and reply.body.get("status") == "success"
    if reply.code is not None or succeeded:
        _judge_api(findings, url, reply, token)
    elif 300 <= status < 400:
        findings.problem(
            f"{url} sends elsewhere (HTTP {status}); give the URL where that ends, maybe https://"
        )
    elif status in {401, 403, 407}:
        findings.problem(
            f"something between here and the API refuses with HTTP {status}, not in the API's words: ask who "
            "runs the proxy or gateway"
        )
    elif status >= 500 or status == 429:
        findings.problem(
            f"{url} answers HTTP {status}, not in the API's words: the API is unavailable behind a proxy, or "
            "something else is there. Workers wait for it, and lose nothing"
        )
    else:
        findings.problem(
            f"something else answers at {url}: HTTP {status} without the API's JSON. Is it the base URL, "
            "without /api/v1?"
        )


def _judge_api(findings: Findings, url: str, reply: Reply, token: str | None) -> None:
    status = reply.status or 0
    words = _spoken(reply, token)
    if status < 300:
        findings.ok(f"the API answers at {url}" + (" and takes the token" if token else ""))
    elif status in {401, 403}:
        findings.ok(f"the API answers at {url}")
        if token is not None:
            findings.problem(f"it refuses the token: {words}. Put a valid one in; workers read a file again")
    elif status == 429:
        findings.ok(f"the API answers at {url}")
        findings.warn(f"it asks for fewer requests now, so the token could not be checked: {words}")
    elif status >= 500:
        findings.problem(
            f"the API at {url} is there and in trouble: {words}. Workers wait for it, and lose nothing"
        )
    else:
        findings.problem(
            f"the API at {url} refuses to be asked: {words}. Is it the base URL, without /api/v1?"
        )


def _spoken(reply: Reply, token: str | None) -> str:
    """Return the reply in the API's own words, which may quote the token: not here."""
    detail = reply.detail if token is None else reply.detail.replace(token, "***")
    return one_line(detail).rstrip(". ")


async def _unreachable(url: str, reply: Reply) -> str:
    """Say why no reply came."""
    parts = urlsplit(url)
    where, reason = plain_url(url), one_line(reply.failure or "no reply")
    host = parts.hostname or ""
    if reply.reached:
        return (
            f"something took the connection at {where} and gave no answer that is HTTP, or none in time "
            f"({reason}): is it the right port, and http:// or https:// as it should be?"
        )
    if _NO_TLS in reason.upper():
        return f"what listens at {where} speaks no TLS ({reason}): is it http://?"
    if any(word in reason.upper() for word in _TLS_WORDS):
        return (
            f"no secure connection to {where} ({reason}): is its certificate valid, made for this host, and "
            "of an authority that is trusted here?"
        )
    if not await _has_address(host):
        return (
            f"the name {one_line(host)} cannot be resolved: is it spelt right, and does the DNS here know it?"
        )
    return f"{where} cannot be reached ({reason}): is it running? Are host and port right?"


async def _has_address(host: str) -> bool:
    with suppress(OSError, UnicodeError, TimeoutError):
        async with asyncio.timeout(_CONNECT_SECONDS):
            return bool(await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM))
    return False
