"""Ports for servers of a test's own, which they can have back after they were killed."""

import os
import random
import socket

# Below the range from which systems give ports to clients. In that range somebody may take a dead server's
# port before it is back; a client that retries on its own machine can even connect to itself.
_FIRST = 11_000
_LAST = 21_999

BUS = 10_000  # A Redis cluster node's second port lies this far above its first, and here below 32,768.

# Every process of a parallel run draws from ports of its own: none is free twice.
_SHARES = 32
_SHARE = int(os.environ.get("PYTEST_XDIST_WORKER", f"gw{_SHARES - 1}").removeprefix("gw")) % _SHARES

_given: set[int] = set()


def free_port() -> int:
    """Return a port that nobody listens on now, nor on the one ``BUS`` above it; never the same twice."""
    dice = random.SystemRandom()
    for _ in range(1_000):
        port = dice.randrange(_FIRST + _SHARE, _LAST + 1, _SHARES)
        if port not in _given and _is_free(port) and _is_free(port + BUS):
            _given.add(port)
            return port
    raise RuntimeError(f"no free port between {_FIRST} and {_LAST}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
