"""The one retry policy, and attempts that go on until one works."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import TypeVar

from prefactor_core.outage import Outage

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often to retry, and how long to wait before: an item has ``max_retries`` + 1 attempts.

    The bound of the wait grows by ``multiplier`` with each failure, from ``base`` to ``cap`` seconds.

    Full jitter (a uniform choice between nothing and the exponential bound) spreads the retries of many
    senders best; see "Exponential Backoff And Jitter" in the AWS architecture blog. A server's
    ``Retry-After`` may exceed the ``cap``.
    """

    max_retries: int = 3
    base: float = 1.0
    multiplier: float = 2.0
    cap: float = 60.0
    rng: random.Random = field(default_factory=random.Random, repr=False)

    def delay(self, failures: int, floor: float = 0.0) -> float:
        """Return seconds to wait after that many failures in a row (1 or more).

        The wait is never shorter than ``floor``, which a server may have asked for.
        """
        try:
            bound = min(self.cap, self.base * self.multiplier ** (failures - 1))
        except OverflowError:
            bound = self.cap
        return floor + self.rng.uniform(0.0, bound)


class Retrying:
    """Attempts of ``who`` until one works: an outage logs the failures, and a policy backs off."""

    def __init__(self, who: Hashable, retry: RetryPolicy, outage: Outage) -> None:
        self._who = who
        self._retry = retry
        self._outage = outage
        self.failures = 0
        """Failures in a row."""

    async def failed(self, error: Exception) -> None:
        """Take note of a failure, and wait before the next attempt."""
        self.failures += 1
        self._outage.failed(self._who, error)
        await asyncio.sleep(self._retry.delay(self.failures))

    def worked(self) -> None:
        """Take note of a success."""
        self.failures = 0
        self._outage.worked(self._who)

    async def insist(self, action: Callable[[], Awaitable[R]]) -> R:
        """Repeat ``action`` until it works, whatever it raises, and return what it returns."""
        while True:
            try:
                result = await action()
            except Exception as error:  # noqa: BLE001 -- told, and retried
                await self.failed(error)
            else:
                self.worked()
                return result
