"""Forks: how often this process has left another behind, for whatever must not be shared with it."""

import os
from typing import Final


class Forks:
    """Counts the forks that led to this process.

    Attributes:
        count: What differs in every child from what was seen in its parent.
    """

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def happened(self) -> None:
        """Take note that this process was forked just now."""
        self.count += 1


# The interpreter's own list of hooks is one for all, and forgets none; asking for the process's number at
# every call would be a system call each time.
FORKS: Final = Forks()
os.register_at_fork(after_in_child=FORKS.happened)
