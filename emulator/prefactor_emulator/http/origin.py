"""Keeping other sites' pages away from an emulator that runs beside a browser."""

import re
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from prefactor_emulator.http.errors import refusal_response
from prefactor_emulator.model import Refusal

_HOST: Final = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::\d+)?")


class OriginGuard:
    """Answers only requests to a host of the emulator's own that no page from elsewhere has sent.

    A name under which the emulator does not know itself is how a page gets around the rule that it reads
    only its own origin: by pointing a name of its own at this machine. Addresses, names without a dot (which
    no other site can have) and those under `.localhost` and `.internal` are the emulator's own.

    Args:
        app: What to guard.
        hosts: Further names of its own.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        refusal = self._judge(Headers(scope=scope)) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await refusal_response(refusal)(scope, receive, send)

    def _judge(self, headers: Headers) -> Refusal | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_own(host):
            message = "this host is not the emulator's: name it with --allow-host to have it answer"
            return Refusal(403, "forbidden_host", message)
        if origin is not None and origin.lower().partition("://")[2] != host.lower():
            return Refusal(403, "forbidden_origin", "a page from another origin may not use the emulator")
        return None

    def _is_own(self, host: str) -> bool:
        found = _HOST.fullmatch(host)
        name = found["name"].lower() if found else ""
        return bool(name) and (
            "." not in name
            or name.endswith((".localhost", ".internal"))
            or name in self._hosts
            or _is_address(name)
        )


def _is_address(name: str) -> bool:
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
