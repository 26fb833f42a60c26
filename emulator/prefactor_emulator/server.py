"""Running the emulator as a process: its socket, its signals, its end."""

import logging
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import cast

import uvicorn
from typing_extensions import override

from prefactor_emulator.app import Emulator
from prefactor_emulator.http.connection import BreakableProtocol

_GRACE_SECONDS = 2


class EmulatorServer(uvicorn.Server):
    """Serves an emulator, and says when it listens.

    Args:
        emulator: What to serve.
        announce: Called once requests are taken.
    """

    def __init__(self, emulator: Emulator, announce: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                emulator,
                loop="asyncio",
                http=BreakableProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )
        self._announce = announce

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()


def bind(host: str, port: int) -> socket.socket:
    """Take the address to listen on, so that a taken one is known before anything starts.

    Args:
        host: A name or an address.
        port: The port; 0 picks a free one.

    Raises:
        OSError: The address cannot be had.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def serve(emulator: Emulator, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, having said on stdout where, once requests are taken."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    server = EmulatorServer(emulator, lambda: _announce(listener))

    def stop(_signal: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    # Uvicorn raises the signal again when it is done; a handler of ours makes that a clean exit.
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    server.run(sockets=[listener])


def _announce(listener: socket.socket) -> None:
    host, port = cast("tuple[str, int]", listener.getsockname()[:2])
    shown = f"[{host}]" if ":" in host else host
    sys.stdout.write(f"prefactor-emulator listening on http://{shown}:{port}\n")
    sys.stdout.flush()
