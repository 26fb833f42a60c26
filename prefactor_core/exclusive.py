"""Locks that finalisers and signal handlers cannot tie into a knot.

Those run amid whatever their thread is doing. If that holds a lock, and they wait for another one, whose
holder waits for the first, neither thread ever goes on. So they do not wait: what they ask for amid a call
that holds one of these locks is put off until their thread holds none. So is what may run code of others,
as logging does.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import Final, ParamSpec, TypeVar, cast

from prefactor_core.exceptions import PrefactorCoreError

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger("prefactor_core")

# The threads that hold a lock, or wait for one, each with what it has put off. An entry comes and goes in
# single steps of the interpreter, which nothing interrupts.
_busy: Final[dict[int, deque[Callable[[], object]] | None]] = {}


class Exclusive:
    """What one thread at a time acts on."""

    __slots__ = ("lock",)

    def __init__(self) -> None:
        self.lock = threading.RLock()

    def alone(self, act: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | None:
        """Call ``act`` while nobody else acts on this, and return what it returns.

        Called amid such a call, or one of another such object, by a finaliser or a signal handler, it returns
        ``None``, and that call is followed by this one.
        """
        me = get_ident()
        if me in _busy:
            _put_off(me, partial(self.hold, act, *args, **kwargs))
            return None
        _busy[me] = None
        try:
            with self.lock:
                return act(*args, **kwargs)
        finally:
            try:
                if _busy[me] is not None:
                    _catch_up(me)
            finally:
                del _busy[me]

    def hold(self, act: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """As ``alone``, but at once in any case: for acts amid those of others, which lead to no more."""
        if get_ident() in _busy:
            with self.lock:
                return act(*args, **kwargs)
        return cast("R", self.alone(act, *args, **kwargs))


def afterwards(act: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Call ``act`` as soon as this thread holds none of these locks: now, mostly."""
    me = get_ident()
    if me in _busy:
        _put_off(me, partial(act, *args, **kwargs))
    else:
        act(*args, **kwargs)


def _put_off(me: int, act: Callable[[], object]) -> None:
    later = _busy[me]
    if later is None:
        later = _busy[me] = deque()
    later.append(act)


def _catch_up(me: int) -> None:
    """Do what was put off, and what is put off meanwhile. No lock is held."""
    later = _busy[me]
    while later:
        act = later.popleft()
        try:
            act()
        except PrefactorCoreError:
            pass  # the client is closed, or delivery has failed, and says so itself
        except Exception as error:  # noqa: BLE001 -- the queue may be the user's own, and nobody waits
            logger.warning("prefactor: a call amid another one has failed: %s", type(error).__name__)


def _forked() -> None:
    """Forget the threads that a child process has not inherited: new ones may have their numbers."""
    me = get_ident()
    for other in [thread for thread in _busy if thread != me]:
        del _busy[other]


os.register_at_fork(after_in_child=_forked)
