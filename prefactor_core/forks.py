"""Forks: what must not be shared with a child process, or be amid something when it is made.

The interpreter's own list of hooks is one for all and forgets none, so there is one place that has them.
"""

import os
from typing import Final
from weakref import WeakSet


class Forkable:
    """What has to do something when this process is forked."""

    def before_fork(self) -> None:
        """Come to rest."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Let go of what is the parent's. Nothing else runs in the child yet."""


class Forks:
    """Counts the forks that led to this process, and tells whoever has to know.

    Attributes:
        count: Differs in every child from what was seen in its parent.
    """

    __slots__ = ("_registered", "_told", "count")

    def __init__(self) -> None:
        self.count = 0
        self._registered = False
        self._told: WeakSet[Forkable] = WeakSet()

    def tell(self, one: Forkable) -> None:
        """Tell ``one`` of forks, as long as it exists.

        The first call decides who comes to rest when: what is registered later with the interpreter is called
        earlier before a fork, and may take a lock that ``one`` needs to come to rest.
        """
        if not self._registered:
            self._registered = True
            os.register_at_fork(before=self.before, after_in_parent=self.after_in_parent)
        self._told.add(one)

    def before(self) -> None:
        """Tell everybody that a fork comes."""
        for one in list(self._told):
            one.before_fork()

    def after_in_parent(self) -> None:
        """Tell everybody that it is done."""
        for one in list(self._told):
            one.after_fork_in_parent()

    def after_in_child(self) -> None:
        """Take note that this process was forked just now, and tell everybody."""
        self.count += 1
        for one in list(self._told):
            one.after_fork_in_child()


FORKS: Final = Forks()
os.register_at_fork(after_in_child=FORKS.after_in_child)
