"""What a session needs of whoever sends its operations, whether that happens here or elsewhere."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Progress:
    """What has become of ``put`` operations. The fields are those of ``ClientStats``."""

    put: int
    delivered: int
    dropped: dict[str, int]
    sending: int = 0
    dead_lettered: int = 0
    retried: int = 0
    overtaken: int = 0
    superseded: dict[str, int] = field(default_factory=dict)


class Sender(ABC):
    """Empties a queue, or sees to it that it is emptied. Belongs to the queue's event loop."""

    destination: str
    """Where operations go, in words for a log."""

    unconfirmed: ClassVar[bool] = False
    """Whether what it is sending at the end may have arrived all the same."""

    @abstractmethod
    def start(self, on_failed: Callable[[], None]) -> None:
        """Start. ``on_failed`` is called once nothing will ever be delivered; no call is to be taken then."""

    @abstractmethod
    def raise_failure(self, *, refused_call: bool = False) -> None:
        """Raise what has ended delivery, if anything has; a ``refused_call`` counts as dropped then.

        Can be called in any thread.
        """

    @abstractmethod
    def progress(self, put_count: Callable[[], int]) -> Progress:
        """Return where everything is. ``put_count`` counts what was put. Can be called in any thread."""

    @abstractmethod
    async def flush(self, timeout: float) -> bool:
        """Wait until everything in the queue is delivered; return whether that came true in time."""

    @abstractmethod
    async def stop(self, timeout: float) -> None:
        """Send what is left, for ``timeout`` seconds at most, and let go of the connections."""

    @abstractmethod
    async def abort(self) -> None:
        """End at once, and let go of the connections."""

    @abstractmethod
    async def leave(self) -> None:
        """Put back what is under way: the event loop is closed, and no task will run."""
