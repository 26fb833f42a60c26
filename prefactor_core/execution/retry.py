"""The one retry policy: exponential backoff with full jitter, under a cap."""

import random
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to wait before trying again.

    Full jitter (a uniform choice between nothing and the exponential bound) spreads the retries of many
    senders best; see "Exponential Backoff And Jitter" in the AWS architecture blog.

    Attributes:
        max_retries: Tries after the first that count against an item.
        base: Bound of the first wait, in seconds.
        multiplier: What the bound grows by with each failure.
        cap: The bound's own bound, in seconds. A server's ``Retry-After`` may exceed it.
        rng: Source of the jitter.
    """

    max_retries: int = 3
    base: float = 1.0
    multiplier: float = 2.0
    cap: float = 60.0
    rng: random.Random = field(default_factory=random.Random, repr=False)

    def delay(self, failures: int, floor: float = 0.0) -> float:
        """Return seconds to wait after that many failures in a row (1 or more).

        Args:
            failures: Failures so far.
            floor: What the server asked for; the wait is never shorter.
        """
        try:
            bound = min(self.cap, self.base * self.multiplier ** (failures - 1))
        except OverflowError:
            bound = self.cap
        return floor + self.rng.uniform(0.0, bound)
