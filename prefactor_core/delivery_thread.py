"""The daemon thread that delivers what code without an event loop has recorded."""

import asyncio
import atexit
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.thread import ThreadPoolExecutor  # its hooks for forks come before ours
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from prefactor_core.accounts import CloseSummary
from prefactor_core.forks import FORKS, Forkable
from prefactor_core.lifetime import Lifetime

if TYPE_CHECKING:
    from multiprocessing.util import Finalize

_GRACE: Final = 5.0
"""Seconds beyond its own bound that the end of a thread is waited for."""
_LONGEST_STEP: Final = 2.0
"""Seconds that a fork waits for the thread to come to rest: importing an HTTP client can take a moment."""


class DeliveryThread(Forkable):
    """An event loop in a thread of its own, which lives as long as what is begun in it.

    As the interpreter exits, what is left is delivered, for ``close_timeout`` seconds at most.

    Args:
        make: Called in the event loop; returns what delivers there. What it raises is raised.
        close_timeout: Seconds.
    """

    def __init__(self, make: Callable[[], Lifetime], close_timeout: float) -> None:
        self._close_timeout = close_timeout
        self._forks = FORKS.count
        self._loop = _Loop()
        self._loop.set_default_executor(ThreadPoolExecutor(thread_name_prefix="prefactor-resolve"))
        made: Future[Lifetime] = Future()
        self._finalizer: Finalize | None = None
        self._exiting = False
        self._parked, self._resume = threading.Event(), threading.Event()
        box = [make]  # a thread holds its arguments while it runs, and this one leads to the client
        self._thread = threading.Thread(
            target=self._run, args=(box, made), name="prefactor-delivery", daemon=True
        )
        del make
        self._thread.start()
        self._lifetime = made.result()
        # After the lifetime's own hooks, and so called before them.
        atexit.register(self._at_exit)
        # A child that multiprocessing has forked ends without exit handlers, but runs finalizers of its own.
        util = sys.modules.get("multiprocessing.util")
        if util is not None:
            self._finalizer = util.Finalize(None, self._at_exit, exitpriority=10)
        FORKS.tell(self)

    def end(self, timeout: float) -> None:
        """Begin to end: take nothing more, and deliver what is queued for ``timeout`` seconds at most."""
        self._lifetime.end(timeout)

    def flush(self, timeout: float) -> bool:
        """Wait until everything put so far is delivered; see ``Lifetime.flush``."""
        flushing = asyncio.run_coroutine_threadsafe(self._lifetime.flush(timeout), self._loop)
        return flushing.result(timeout + 2 * _GRACE)

    def close(self, timeout: float) -> CloseSummary:
        """Deliver what is queued, end the thread, and return or raise as ``Lifetime.result``."""
        self.end(timeout)
        if threading.current_thread() is not self._thread:  # else it would wait for itself
            self._thread.join(timeout + _GRACE)
        return self._lifetime.result()

    def _forget_exit(self) -> None:
        if self._exiting:
            return
        atexit.unregister(self._at_exit)
        if self._finalizer is not None and self._finalizer.still_active():
            self._finalizer.cancel()

    def _at_exit(self) -> None:
        if self._forks == FORKS.count:
            self._exiting = True
            self._lifetime.end(self._close_timeout)
            self._thread.join(self._close_timeout + _GRACE)

    # -- forks

    def before_fork(self) -> None:
        """Park the thread between two steps: a child must not find a lock held, or a module half imported.

        If that takes long, the fork does not wait for it.
        """
        if threading.current_thread() is self._thread or self._forks != FORKS.count:
            return
        self._parked.clear()
        self._resume.clear()
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._park)
            self._parked.wait(_LONGEST_STEP)

    def after_fork_in_parent(self) -> None:
        """Let the thread go on."""
        self._resume.set()

    def _park(self) -> None:
        self._parked.set()
        self._resume.wait()

    # -- in the thread

    def _run(self, box: list[Callable[[], Lifetime]], made: "Future[Lifetime]") -> None:
        lifetime = self._loop.run_until_complete(_begin(box.pop(), made))
        try:
            if lifetime is not None:
                self._loop.run_until_complete(lifetime.over())
        finally:
            self._wind_up()
            self._forget_exit()

    def _wind_up(self) -> None:
        """End as ``asyncio.run`` does."""
        loop = self._loop
        loop.run_until_complete(_cancel_others())
        loop.run_until_complete(loop.shutdown_asyncgens())
        with suppress(RuntimeError):  # as the interpreter exits, no thread can be started that would do so
            loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


async def _begin(make: Callable[[], Lifetime], made: "Future[Lifetime]") -> Lifetime | None:
    try:
        lifetime = make()
        await lifetime.begin()
    except BaseException as error:  # noqa: BLE001 -- raised where the thread was started
        made.set_exception(error)
        return None
    made.set_result(lifetime)
    return lifetime


async def _cancel_others() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


class _Loop(asyncio.SelectorEventLoop):
    """Resolves names even as the interpreter exits, when asyncio has no thread any more to do it in."""

    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().getaddrinfo(*args, **kwargs)
        except RuntimeError:
            return socket.getaddrinfo(*args, **kwargs)
