"""Credit: how many rejections are believed while nothing succeeds, and the lanes that are held beyond that.

An API that rejects one operation is right. One that rejects everything is the wrong one, or the token is of
another account; then each dead letter would have to be replayed. So every dead letter that a rejection
makes spends credit, and every success restores it. Without credit a rejected lane is held, and nobody else:
all held lanes share a slow pace of retries, and the next success frees them. Dependents spend credit as well,
until a success has come after the rejection that they follow; half of the credit is kept for rejections.

A rejection between two successes that are close together is believed without credit: the API was right all
the time. Where only a few lanes are rejected after all, the fault is theirs, and they are believed later.
"""

import logging
import math
from collections import deque
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

from prefactor_core.bounded import Throttle

logger = logging.getLogger("prefactor_core.queue")

L = TypeVar("L")

CREDIT: Final = 20
"""Dead letters that rejections may make with no success in between."""
RETRY_SECONDS: Final = 0.2
"""Seconds between two retries of held lanes, all together."""
GENERAL: Final = 20
"""Lanes that have to be rejected, with no success in between, for a fault to be the API's."""
_DOUBT_SECONDS: Final = 5.0
"""Seconds without credit after which fewer lanes are believed to be at fault themselves."""
_CLOSE_SECONDS: Final = 1.0
"""Seconds between two successes for which the API was right all the time."""
_EARLY_SECONDS: Final = 1e-6
"""How much too early a timer may come."""
_QUIET_SECONDS: Final = 60.0
"""Seconds between two warnings: beside others that succeed, credit comes and goes."""


class Credit(Generic[L]):
    """The credit of one executor, and the lanes that wait for it."""

    def __init__(self) -> None:
        self._left = CREDIT
        self._held: deque[L] = deque()
        self._rejected: set[Hashable] = set()
        self._next_retry = 0.0
        self._exhausted_at = math.inf
        self._succeeded_at = -math.inf
        self._throttle = Throttle(_QUIET_SECONDS)
        self._warned = False
        self.successes = 0
        """How many there were: what was rejected at an earlier number is confirmed."""
        self.exhausted: str | None = None
        """Why lanes are held, if any were since the last success."""

    def __len__(self) -> int:
        return len(self._held)

    @property
    def general(self) -> bool:
        """Whether so many lanes were rejected that the fault must be the API's."""
        return len(self._rejected) >= GENERAL

    def spend(self, key: Hashable, now: float, *, dependent: bool = False) -> bool:
        """Pay for a dead letter of the lane with that key; whether it is believed.

        A ``dependent`` was not rejected itself, and follows what was since the last success.
        """
        if not self.general:
            self._rejected.add(key)
        if self._left > (CREDIT // 2 if dependent else 0):
            self._left -= 1
            return True
        return not self.general and now - self._exhausted_at >= _DOUBT_SECONDS

    def hold(self, lane: L, reason: str, now: float) -> None:
        """Hold a lane that there was no credit for, until its retry is due. ``reason`` is fit for logs."""
        if self.exhausted is None:
            self.exhausted = reason
            self._exhausted_at = now
            if self._throttle.allows(now):
                self._warned = True
                logger.warning(
                    "%d operations were rejected, and none was taken in between: what is rejected is held "
                    "from now on, and retried slowly, until one is taken; check api_url, the token's account "
                    "and the schemas. The last rejection: %s",
                    CREDIT,
                    reason,
                )
        if not self._held:
            self._next_retry = max(self._next_retry, now + RETRY_SECONDS)
        self._held.append(lane)

    @property
    def next_retry(self) -> float | None:
        """When the next held lane may be retried, in monotonic seconds; ``None`` if none is held."""
        return self._next_retry if self._held else None

    def retry(self, now: float, is_over: Callable[[L], bool]) -> list[L]:
        """Free and return the held lane whose retry is due, if one is, and with it those that are over."""
        if not self._held or now < self._next_retry - _EARLY_SECONDS:
            return []
        self._next_retry = now + RETRY_SECONDS
        due = self._held.popleft()
        over = [lane for lane in self._held if is_over(lane)]
        if over:
            self._held = deque(lane for lane in self._held if not is_over(lane))
        return [due, *over]

    def restore(self, now: float) -> tuple[list[L], bool]:
        """Note a success: credit is whole again.

        Returns:
            The lanes that were held, and whether what they were rejected with is believed: the success before
            this one was only a moment ago.
        """
        believed = now - self._succeeded_at <= _CLOSE_SECONDS
        self._succeeded_at = now
        self._left = CREDIT
        self.successes += 1
        self._rejected.clear()
        if self.exhausted is None:
            return [], believed
        if self._warned:
            self._warned = False
            logger.warning("the API accepts operations again; %d held instances resume", len(self._held))
        self.exhausted = None
        freed = [*self._held]
        self._held.clear()
        return freed, believed

    def clear(self) -> None:
        """Hold nothing."""
        self._held.clear()
