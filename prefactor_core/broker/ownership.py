"""What an owner of partitions knows: how long its lease certainly lasts, and the name that operators see."""

import os
import socket
import time
from collections.abc import Callable
from typing import ClassVar


class Lease:
    """A lease as its owner may judge it, without the network; a transport's ``Partition.held`` can ask it.

    Args:
        seconds: For how long the broker gives it.
        asked_at: When it was asked for, by ``clock``: before the broker can have begun to count.
        clock: Seconds that only grow.
    """

    safe_part: ClassVar[float] = 0.8
    """Of a lease, what its owner counts on: clocks of two machines do not run at quite the same speed."""

    def __init__(self, seconds: float, asked_at: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self.clock = clock
        self._safe = seconds * self.safe_part
        self._until = asked_at + self._safe
        self._held = True

    @property
    def held(self) -> bool:
        """Whether it is certainly held now; once it is not, it never is again."""
        if self._held and self.clock() >= self._until:
            self._held = False
        return self._held

    def renewed(self, asked_at: float) -> None:
        """Extend it: the broker renewed it when it was asked at that time."""
        if self.held:
            self._until = max(self._until, asked_at + self._safe)

    def end(self) -> None:
        """Hold it no longer."""
        self._held = False


def process_name() -> str:
    """Return the host and process id by which operators find this process."""
    return f"{socket.gethostname()}:{os.getpid()}"
