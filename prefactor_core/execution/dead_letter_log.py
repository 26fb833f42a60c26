"""One log line for dead letters of a kind, however many there are."""

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

from prefactor_core.bounded import Throttle
from prefactor_core.operations import Operation
from prefactor_core.queue.base import DeadLetter
from prefactor_core.texts import one_line

logger = logging.getLogger("prefactor_core.queue")

_INTERVAL: Final = 30.0
"""Seconds between two lines about the same type and reason, and about messages that cannot be read."""
_LONGEST_KEY: Final = 64
_LONGEST_REASON: Final = 1_000
"""Characters that are logged: what a handler raises may say anything, at any length."""


class DeadLetterLog:
    """Logs dead letters with type, key and reason; never what was in them."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._throttle = Throttle(_INTERVAL)
        self._silent = 0

    def write(self, letters: Iterable[DeadLetter[Any]]) -> None:
        """Log the letters whose type and reason have not been logged lately."""
        for letter in letters:
            item = letter.item
            name = item.type.value if isinstance(item, Operation) else type(item).__name__
            reason = one_line(letter.reason, _LONGEST_REASON)
            key = item.idempotency_key if isinstance(item, Operation) else None
            if key is not None:
                key = one_line(str(key), _LONGEST_KEY)
            self._say((name, reason), f"{name} {key}: {reason}")

    def write_unread(self, partition: int, reason: str) -> None:
        """Log a message that was dead-lettered since it cannot be read, if none has been logged lately."""
        self._say(("unread", ""), f"unread, from partition {partition}: {one_line(reason, _LONGEST_REASON)}")

    def _say(self, kind: tuple[str, str], text: str) -> None:
        if not self._throttle.allows(self._monotonic(), kind):
            self._silent += 1
            return
        more = f" (and {self._silent} more that were not logged)" if self._silent else ""
        logger.warning("dead-lettered: %s%s", text, more)
        self._silent = 0
