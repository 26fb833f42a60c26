"""Trials: messages of careful partitions that are handled one at a time, and who of them has to be alone.

A crash is held against every message that was begun and not ended. Those that are begun for the first time
may be under way together, one a partition; one that was begun before, when somebody crashed, is tried with no
other trial beside it, so that the next crash is held against the guilty one only.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from prefactor_core.broker.tenure import Tenure

_LOOK: Final = 0.02
"""Seconds between two looks at whether other trials are over."""


@dataclass(slots=True, eq=False)
class Trial:
    """One message under way, from before it is begun until it is disposed of.

    Attributes:
        tenure: Its partition.
        alone: Whether no other may be under way beside it.
        handed_out: Whether its delivery waits to be carried out, or is.
    """

    tenure: Tenure
    alone: bool
    handed_out: bool = False

    @property
    def over(self) -> bool:
        """Whether it was disposed of, or is another process's."""
        return self.handed_out and (not self.tenure.items or not self.tenure.current)


class Court:
    """All trials of one process."""

    def __init__(self) -> None:
        self._trials: list[Trial] = []
        self._waiting_alone = 0

    async def open(self, tenure: Tenure, *, alone: bool) -> Trial:
        """Wait until a trial may begin, and open it.

        Args:
            tenure: Whose message it is; if that is lost meanwhile, the wait ends too.
            alone: Whether it was begun before without an end.
        """
        self._waiting_alone += alone
        try:
            # Many partitions' states are looked at, each of which may change: no event stands for all.
            while tenure.current and self._is_blocked(alone=alone):  # noqa: ASYNC110
                await asyncio.sleep(_LOOK)
        finally:
            self._waiting_alone -= alone
        trial = Trial(tenure, alone)
        self._trials.append(trial)
        return trial

    def drop(self, trial: Trial) -> None:
        """Close a trial whose message was not handed out after all."""
        self._trials.remove(trial)

    def _is_blocked(self, *, alone: bool) -> bool:
        self._trials = [trial for trial in self._trials if not trial.over]
        if alone:
            return bool(self._trials)
        return self._waiting_alone > 0 or any(trial.alone for trial in self._trials)
