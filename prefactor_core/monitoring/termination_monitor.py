"""Termination: the service asks an instance's agent to stop.

It says so in the replies to the instance's spans, or, where there are none, in the instance's status. Either
marks that instance here, for its agent to look at; nothing is stopped by force.
"""

import logging
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

from prefactor_core.bounded import remember

logger = logging.getLogger(__name__)

_RUNNING_KEPT: Final = 100_000
"""Unfinished instances that are watched; then the oldest are let go."""
_OTHERS_KEPT: Final = 1_000
"""Finished instances, and those of other processes, whose mark can be looked at."""

# The instance that was registered in this context. Like the span stack, it has to follow a task.
_registered_here: Final[ContextVar[str | None]] = ContextVar("prefactor_instance", default=None)


class _Watched:
    __slots__ = ("event", "reason")

    def __init__(self) -> None:
        self.event = threading.Event()
        self.reason: str | None = None


class TerminationMonitor:
    """Knows which instances have been asked to stop. Its answers can be asked for from any thread.

    A client has one for as long as it lives. Without an instance's id it speaks for the current instance: the
    one that was registered in the caller's context, as long as that one is running; else the one that was
    registered last.
    """

    def __init__(self) -> None:
        self._running: dict[str, _Watched] = {}
        self._others: dict[str, _Watched] = {}
        self._last = _Watched()
        self._last_terminated = self._last

    def watch(self, instance_id: str) -> None:
        """Begin to watch an instance; it becomes the current one."""
        self._last = self._running[instance_id] = _Watched()
        _registered_here.set(instance_id)
        if len(self._running) > _RUNNING_KEPT:
            self.finished(next(iter(self._running)))

    def finished(self, instance_id: str) -> None:
        """Stop watching an instance that is over; a mark that it has stays for a while."""
        watched = self._running.pop(instance_id, None)
        if watched is not None:
            self._keep(instance_id, watched)

    def all_finished(self) -> None:
        """Stop watching everything: the client is closed."""
        for instance_id in list(self._running):
            self.finished(instance_id)

    def terminated(self, instance_id: str, reason: str | None) -> None:
        """Mark an instance: the service asks its agent to stop. The first reason stands."""
        watched = self._entry(instance_id)
        if watched.event.is_set():
            return
        watched.reason = reason
        self._last_terminated = watched
        watched.event.set()
        logger.warning("instance %s is asked to stop", instance_id)

    def running(self) -> list[str]:
        """Return the instances that are watched and have not been asked to stop."""
        return [identity for identity, watched in self._running.items() if not watched.event.is_set()]

    @property
    def get_termination_event(self) -> Callable[..., threading.Event]:
        """A function that returns the event which is set when an instance is asked to stop.

        It takes the instance's id; by default it speaks for the current instance of the place where it was
        looked up, so that it can be kept and called in any thread.
        """
        here = _registered_here.get()

        def event(instance_id: str | None = None) -> threading.Event:
            if instance_id is not None:
                return self._entry(instance_id).event
            return self._current(here).event

        return event

    @property
    def termination_reason(self) -> str | None:
        """What the service gave as its reason: for the current instance, else for the one asked last."""
        current = self._current(_registered_here.get())
        return current.reason if current.event.is_set() else self._last_terminated.reason

    def reason(self, instance_id: str) -> str | None:
        """Return what the service gave as its reason for an instance, if it did."""
        watched = self._find(instance_id)
        return watched.reason if watched is not None else None

    def _current(self, here: str | None) -> _Watched:
        # An instance that was asked to stop stays the current one until another is registered here.
        watched = self._find(here) if here is not None else None
        if watched is not None and (here in self._running or watched.event.is_set()):
            return watched
        return self._last

    def _find(self, instance_id: str) -> _Watched | None:
        return self._running.get(instance_id) or self._others.get(instance_id)

    def _entry(self, instance_id: str) -> _Watched:
        """Return what is known of an instance, which may be another process's."""
        return self._find(instance_id) or self._keep(instance_id, _Watched())

    def _keep(self, instance_id: str, watched: _Watched) -> _Watched:
        remember(self._others, instance_id, watched, _OTHERS_KEPT)
        return watched
