"""A worker's assignment, the partitions that it owns: how large it should be, and the log of its changes."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Final

from prefactor_core.broker.driver import Fleet, Loss

logger = logging.getLogger("prefactor_core.broker")

_QUIET: Final = 2.0
"""Seconds without a change after which a rebalance is over, with as many partitions as were to be had."""
_INCOMPLETE: Final = 6.0
"""The same with other than that: others take a few seconds to release partitions, or the broker to return."""
_LONGEST: Final = 60.0
"""Seconds after which a line is due, even if partitions still change hands."""


def assignment_size(partitions: int, fleet: Fleet) -> int:
    """Return how many partitions a worker is to own.

    Where the broker tells ranks, the assignments add up to all partitions and differ by one at most. Without
    ranks every worker may take the larger number: no partition is left over, and the last may have fewer.
    """
    least, more = divmod(partitions, fleet.size)
    if fleet.rank is None:
        return least + (more > 0)
    return least + (fleet.rank < more)


class Rebalance:
    """Logs the partitions that this process gains, releases and loses: one line for each rebalance."""

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        self._name = name
        self._clock = clock
        self._gained: set[int] = set()
        self._released: set[int] = set()
        self._lost: dict[int, Loss] = {}
        self._began = 0.0
        self._changed = 0.0

    def gained(self, partition: int) -> None:
        """Note a partition that is owned from now on."""
        self._note()
        if partition in self._released:
            self._released.remove(partition)
        else:
            self._gained.add(partition)

    def released(self, partition: int) -> None:
        """Note one that was released."""
        self._note()
        if partition in self._gained:
            self._gained.remove(partition)
        else:
            self._released.add(partition)

    def lost(self, partition: int, loss: Loss) -> None:
        """Note one that was lost."""
        self._note()
        self._gained.discard(partition)
        known = self._lost.get(partition)
        if known is None or not known.serious:
            self._lost[partition] = loss

    def look(self, owned: int, *, complete: bool) -> None:
        """Log the rebalance if it is over.

        It is ``complete`` if as many are owned as should be, and none is being released.
        """
        now = self._clock()
        quiet = now - self._changed >= (_QUIET if complete else _INCOMPLETE)
        if quiet or now - self._began >= _LONGEST:
            self.end(owned)

    def end(self, owned: int) -> None:
        """Log what has changed since the last line, if anything has."""
        by_reason: defaultdict[str, list[int]] = defaultdict(list)
        for partition, loss in self._lost.items():
            by_reason[loss.reason].append(partition)
        changes: list[tuple[str, Iterable[int]]] = [
            *((f"lost ({reason})", which) for reason, which in by_reason.items()),
            ("gained", self._gained),
            ("released", self._released),
        ]
        if told := ", ".join(f"{what} {_ranges(which)}" for what, which in changes if which):
            logger.log(self._level(), "rebalance of %s: %s; owns %d", self._name, told, owned)
        self._gained, self._released, self._lost = set(), set(), {}

    def _level(self) -> int:
        if any(loss.serious for loss in self._lost.values()):
            return logging.ERROR
        return logging.WARNING if self._lost else logging.INFO

    def _note(self) -> None:
        self._changed = self._clock()
        if not (self._gained or self._released or self._lost):
            self._began = self._changed


def _ranges(numbers: Iterable[int]) -> str:
    """Return numbers as people write them: ``[0-3, 7]``."""
    runs: list[list[int]] = []
    # Of numbers in a run, the difference from their place is the same.
    for _, run in groupby(enumerate(sorted(numbers)), lambda place: place[1] - place[0]):
        runs.append([number for _, number in run])
    return f"[{', '.join(str(run[0]) if len(run) == 1 else f'{run[0]}-{run[-1]}' for run in runs)}]"
