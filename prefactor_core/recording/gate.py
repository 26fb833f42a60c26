"""The gate: whether calls are taken now, and which instances they are about."""

from collections.abc import Callable
from typing import Protocol

from prefactor_core.forks import FORKS
from prefactor_core.recording.records import Records


class Refuse(Protocol):
    """Raises why no call is taken."""

    def __call__(self, *, puts: bool) -> None:
        """Raise; a call that ``puts`` something and is refused for good counts as dropped."""


class Gate:
    """Lets calls through until it is shut.

    Whatever delivers holds the gate, and the gate leads nowhere: who records may be gone by then.

    Args:
        refuse: Raises why no call is taken any more.
        left_behind: Whether the event loop that delivers is closed.
    """

    def __init__(self, refuse: Refuse, left_behind: Callable[[], bool]) -> None:
        self._refuse = refuse
        self._left_behind = left_behind
        self._forks = FORKS.count
        self._is_shut = False
        self.records = Records()
        """The instances that are recorded here."""

    def check(self, *, puts: bool = True) -> None:
        """Raise if no call is taken."""
        if self._is_shut or FORKS.count != self._forks or self._left_behind():
            self._refuse(puts=puts)

    @property
    def is_inherited(self) -> bool:
        """Whether it belongs to the process that this one was forked from."""
        return FORKS.count != self._forks

    def check_again(self) -> None:
        """Raise if no call is taken any more, amid one that was."""
        if self._is_shut:
            self._refuse(puts=True)

    def shut(self) -> None:
        """Take no call any more. What is recorded once this returns was refused."""
        self._is_shut = True
        for record in self.records.held():
            record.alone(_nothing)  # whoever is amid a call is past the check

    def let_go(self) -> None:
        """Take all open spans for over: in whatever context they stand, they are no parents any more."""
        for record in self.records.all():
            for span in list(record.spans.values()):
                span.over = True


def _nothing() -> None:
    """Do nothing: the wait for one's turn was what was wanted."""
