"""Reaching from an ASGI application to the connection under it, to break it."""

from typing import TYPE_CHECKING, cast

from starlette.types import Receive, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio

_EXTENSION = "prefactor_emulator.http.connection"


class BreakableProtocol(HttpToolsProtocol):
    """Uvicorn's protocol, which also hands its transport to the application."""

    def on_message_begin(self) -> None:
        """Note the transport in the new request's scope."""
        super().on_message_begin()
        cast("Scope", self.scope)["extensions"] = {_EXTENSION: self.transport}


async def drop_connection(scope: Scope, receive: Receive, *, flush: bool = False) -> None:
    """Close a request's connection and return once the server has noticed.

    A server that knows of the disconnect expects no reply any more, so none has to be faked.

    Args:
        scope: The request's scope.
        receive: The request's own channel.
        flush: Send out first what has been written already. Otherwise the connection is reset.
    """
    transport = cast("asyncio.Transport", scope["extensions"][_EXTENSION])
    if flush:
        transport.close()
    else:
        transport.abort()
    while (await receive())["type"] != "http.disconnect":
        pass
