"""Termination: the service asks an instance's agent to stop.

It says so in the replies to the instance's spans, or, where there are none, in the instance's status. Either
marks that instance here, for its agent to look at; nothing is stopped by force.
"""

import asyncio
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
"""Instances of other processes, and finished ones, whose mark can be looked at."""

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
    one that was registered in the caller's context, as long as that one is unfinished; else the one that was
    registered last. The finish of an instance clears its mark.

    Args:
        fetch_instance: Taken for compatibility; the client asks for the status of its instances itself.
        poll_interval: Taken for compatibility; ``PrefactorCoreConfig.termination_poll_interval`` counts.
    """

    def __init__(
        self, fetch_instance: Callable[..., object] | None = None, poll_interval: float | None = None
    ) -> None:
        del fetch_instance, poll_interval
        self._running: dict[str, _Watched] = {}
        self._others: dict[str, _Watched] = {}
        self._last: str | None = None
        # Stands for the current instance where there is none.
        self._nobody = _Watched()
        self._last_terminated = self._nobody
        self._fenced = False
        self._destroyed = False
        self._callbacks: list[Callable[[], None]] = []

    def watch(self, instance_id: str) -> None:
        """Begin to watch an instance; it becomes the current one."""
        self._running.setdefault(instance_id, _Watched())
        self._last = instance_id
        self._fenced = False
        _registered_here.set(instance_id)
        if len(self._running) > _RUNNING_KEPT:
            self.finished(next(iter(self._running)))

    def sync(self, instance_id: str | None) -> None:
        """Make an instance the current one, as one that another process registered; ``None`` changes nothing.

        The client does so itself with every instance that it registers.
        """
        if instance_id is not None:
            self.watch(instance_id)

    def finished(self, instance_id: str) -> None:
        """Stop watching an instance that is over, and clear its mark and its reason."""
        self._forget(self._running.pop(instance_id, None))
        self._forget(self._others.pop(instance_id, None))

    def all_finished(self) -> None:
        """Stop watching: the client is closed. An agent that was asked to stop can still see so."""
        for instance_id in self.running():
            self.finished(instance_id)

    def terminated(self, instance_id: str, reason: str | None) -> None:
        """Mark an instance: the service asks its agent to stop. The first reason stands."""
        running = self._running.get(instance_id)
        # Who subscribed is told of instances that run here, not of a reply that comes after the finish.
        self._mark(running or self._entry(instance_id), reason, tell=running is not None)

    def detect_termination(self, reason: str | None) -> None:
        """Mark the current instance, for an integration that learns of its end by itself.

        Between ``reset`` and the next instance it does nothing.
        """
        if not self._fenced:
            self._mark(self._current(_registered_here.get()), reason, tell=True)

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have ``callback`` called once for each instance of this client that is asked to stop.

        It is called where the client learns of it, in its event loop, and must not block. What it raises is
        logged.

        Returns:
            What ends the subscription.
        """
        self._callbacks.append(callback)

        def unsubscribe() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return unsubscribe

    def reset(self) -> None:
        """Forget the current instance and its mark, as its finish does. Subscriptions stay."""
        here = _registered_here.get()
        current = here if here in self._running else self._last
        if current is not None:
            self.finished(current)
        self._forget(self._nobody)
        self._nobody = _Watched()
        self._fenced = True

    def destroy(self) -> None:
        """End all subscriptions, and mark nothing any more."""
        self._destroyed = True
        self._callbacks.clear()

    def running(self) -> list[str]:
        """Return the instances that are watched and have not been asked to stop."""
        return [identity for identity, watched in list(self._running.items()) if not watched.event.is_set()]

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

    def _mark(self, watched: _Watched, reason: str | None, *, tell: bool) -> None:
        if watched.event.is_set() or self._destroyed:
            return
        watched.reason = reason
        if tell:
            self._last_terminated = watched
        watched.event.set()
        for callback in tuple(self._callbacks) if tell else ():
            try:
                callback()
            except (Exception, asyncio.CancelledError):  # a callback's own: nothing is awaited here
                logger.exception("prefactor: what was subscribed to terminations has failed")

    def _forget(self, watched: _Watched | None) -> None:
        if watched is self._last_terminated:
            self._last_terminated = _Watched()

    def _current(self, here: str | None) -> _Watched:
        running = self._running
        watched = running.get(here) if here is not None else None
        if watched is None and self._last is not None:
            watched = running.get(self._last)
        return watched or self._nobody

    def _find(self, instance_id: str) -> _Watched | None:
        return self._running.get(instance_id) or self._others.get(instance_id)

    def _entry(self, instance_id: str) -> _Watched:
        """Return what is known of an instance, which may be another process's."""
        found = self._find(instance_id)
        if found is None:
            found = _Watched()
            remember(self._others, instance_id, found, _OTHERS_KEPT)
        return found
