"""Whether a worker makes progress, and whether it is ready: in words for people and for probes."""

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from prefactor_worker.run.meter import Meter

_STALLED: Final = 120.0
"""Seconds without progress, with something to do and nothing known to be in the way, that are too many."""
_FROZEN: Final = 15.0
"""Seconds without a turn of the event loop that are too many."""


class Verdict(NamedTuple):
    """An answer to a probe: whether all is well, and why, or why not."""

    good: bool
    words: str


class Health:
    """Answers probes, from any thread; ``prefetched`` returns how many operations the worker has."""

    def __init__(self, prefetched: Callable[[], int], meter: Meter) -> None:
        self._prefetched = prefetched
        self._meter = meter
        self.ticked_at = time.monotonic()
        """When the event loop had its last turn."""
        self.broker_problem: str | None = "not connected to the broker yet"
        """What is wrong with the broker, if anything is."""
        self.waiting_for: str | None = None
        """What the API makes everything wait for."""
        self.paused = 0.0
        """Seconds for which the API has asked everybody to wait."""

    def alive(self) -> Verdict:
        """Say whether it makes progress, or has a good reason not to."""
        now = time.monotonic()
        if now - self.ticked_at > _FROZEN:
            return Verdict(good=False, words=f"the event loop has not run for {now - self.ticked_at:.0f} s")
        prefetched = self._prefetched()
        if not prefetched:
            return Verdict(good=True, words="nothing to do")
        if self.waiting_for is not None:
            return Verdict(good=True, words=f"waiting: {self.waiting_for}")
        if self.paused:
            return Verdict(good=True, words=f"the API asks everybody to wait, for {self.paused:.0f} s more")
        idle = now - self._meter.progressed_at
        if idle > _STALLED:
            return Verdict(
                good=False,
                words=f"{prefetched} operations are prefetched, and nothing was done for {idle:.0f} s",
            )
        return Verdict(good=True, words=f"{prefetched} operations are being worked on")

    def ready(self) -> Verdict:
        """Say whether broker and API are both there and take what they are given."""
        if self.broker_problem is not None:
            return Verdict(good=False, words=self.broker_problem)
        if self.waiting_for is not None:
            return Verdict(good=False, words=self.waiting_for)
        return Verdict(good=True, words="ready")
