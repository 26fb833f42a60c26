"""How a session's operations are delivered, and how that ends: closed, dropped, or left by its event loop."""

import asyncio
import atexit
import contextvars
import logging
import os
from typing import TYPE_CHECKING, Final
from weakref import ReferenceType

from prefactor_core.accounts import ClientStats, CloseSummary
from prefactor_core.exceptions import ClientClosedError, WrongEventLoopError
from prefactor_core.monitoring.termination_monitor import TerminationMonitor
from prefactor_core.operations import Operation
from prefactor_core.outbox import Outbox
from prefactor_core.queue.base import Queue
from prefactor_core.waiters import in_time

if TYPE_CHECKING:
    from prefactor_core.sender import LocalSender

logger = logging.getLogger("prefactor_core")

_PATIENCE: Final = 1.0
"""Seconds after which the end says what it waits for: somebody may be waiting for the process to exit."""


class Lifetime:
    """Delivers what is put into a queue, from now until the end.

    One task waits for the end and carries it out, however it comes: ``end`` (the client is closed),
    ``drop`` (nobody is left to close it), or a cancellation of that task (the event loop ends). Neither this
    object nor anything that it starts holds the client. ``sender`` empties the queue, if that happens here.
    """

    def __init__(
        self,
        queue: Queue[Operation],
        sender: "LocalSender | None",
        monitor: TerminationMonitor,
        close_timeout: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._process = os.getpid()
        self._queue = queue
        self._sender = sender
        self._monitor = monitor
        self._close_timeout = close_timeout
        self.outbox = Outbox(queue)
        # A queue of the user's may have been used before.
        self.outbox.put_count = queue.size() + sum(queue.dropped.values())
        self._closed = False
        self._dropped = False
        self._reported = False
        self._failure_told = False
        self._closers = 0
        self._wanted_end: asyncio.Future[float] = self._loop.create_future()
        # A context of its own: the caller's may hold the client, and tasks hold their context.
        self._context = contextvars.Context()
        self._ending = self._loop.create_task(
            self._end_when_wanted(), name="prefactor-end", context=self._context
        )

    async def begin(self) -> None:
        """Begin to send; from now on the event loop cannot end without this object's knowledge."""
        await asyncio.sleep(0)  # the task that waits for the end begins, so that a cancellation reaches it
        if self._sender is not None and not self._closed:
            self._context.run(self._sender.start)

    @property
    def loop_closed(self) -> bool:
        """Whether the event loop that all of this belongs to is closed."""
        return self._loop.is_closed()

    def check(self, *, puts: bool = True) -> None:
        """Raise if a call cannot be taken: in another event loop, or after the end or a final failure.

        A call that ``puts`` operations and meets the failure counts as dropped.
        """
        self.check_loop()
        if self._sender is not None:
            self._sender.raise_failure(refused_call=puts)
        if self._closed:
            raise ClientClosedError("the client is closed: initialize() it again to go on")

    def check_loop(self) -> None:
        """Raise ``WrongEventLoopError`` unless the caller runs in the event loop of all this."""
        try:
            running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            return
        if self.loop_closed:
            raise WrongEventLoopError(
                "the client belongs to an event loop that is closed: initialize() it again to go on"
            )
        raise WrongEventLoopError(
            "the client belongs to the event loop that initialised it; from another thread or loop, use "
            "asyncio.run_coroutine_threadsafe(coroutine, that_loop)"
        )

    async def flush(self, timeout: float) -> bool:
        """Wait until everything put so far is delivered, for ``timeout`` seconds at most.

        Raises as ``check`` does, before and after.
        """
        self.check(puts=False)
        deadline = self._loop.time() + timeout
        done = await in_time(self.outbox.drain(), timeout)
        if done:
            left = max(0.0, deadline - self._loop.time())
            done = await (self._sender or self._queue).flush(left)
        self.check(puts=False)
        return done

    # -- accounts

    def stats(self, open_spans: int = 0) -> ClientStats:
        """Return what has become of everything so far."""
        put, dropped = self.outbox.put_count, dict(self._queue.dropped)
        buffered, sending, dead, retried = self._queue.size(), 0, 0, 0
        overtaken, superseded = 0, dict[str, int]()
        if self._sender is not None:
            account, sending = self._sender.executor.account, self._sender.executor.prefetched
            delivered, dead, retried = account.settled, account.dead_lettered, account.retried
            overtaken, superseded = account.overtaken, dict(account.superseded_by_type)
            if self._sender.discarded:
                dropped["discarded"] = self._sender.discarded
        else:
            published = self._queue.published
            if published is not None:  # else the queue counts nothing but what waits
                buffered, sending = published.buffered, published.unconfirmed
            delivered = put - buffered - sending - sum(dropped.values())
        return ClientStats(
            put=put,
            delivered=delivered,
            dead_lettered=dead,
            dropped=dropped,
            buffered=buffered,
            sending=sending,
            retried=retried,
            open_spans=open_spans,
            overtaken=overtaken,
            superseded=superseded,
        )

    def summary(self) -> CloseSummary:
        """Return what has been delivered, and call everything else left."""
        stats = self.stats()
        # Whatever is not known to be elsewhere was left, also what a queue could not take back.
        known = stats.delivered + sum(stats.superseded.values()) + stats.dead_lettered
        return CloseSummary(
            put=stats.put,
            delivered=stats.delivered,
            dead_lettered=stats.dead_lettered,
            dropped=stats.dropped,
            left=stats.put - known - sum(stats.dropped.values()),
            unconfirmed=stats.sending if self._sender is None else 0,
            overtaken=stats.overtaken,
            superseded=stats.superseded,
        )

    # -- the end

    def end(self, timeout: float) -> None:
        """Begin to end: take nothing more, and deliver what is queued for ``timeout`` seconds at most."""
        if not self.loop_closed:
            self.check_loop()
            self._want_end(timeout)

    def drop(self, entrance: ReferenceType[object]) -> None:
        """Begin to end as ``end`` does, in the background, since nobody is left who could call it.

        Called by a finalizer of the entrance: in any thread, amidst anything, or as the interpreter exits.
        """
        if self._is_a_fork():
            return
        if entrance() is not None:
            self._report_left()  # the interpreter exits, and nothing can be delivered any more
            return
        if self._reported:
            return
        # The loop may never run again; then the exit of the interpreter is the last moment to say so.
        atexit.register(self._report_left)
        try:
            self._loop.call_soon_threadsafe(self._end_dropped)
        except RuntimeError:  # the loop is closed
            self._report_left()

    async def ended(self) -> CloseSummary:
        """Wait for the end and return what came of everything; or, once, raise what has ended delivery.

        Cancelled, the last caller ends it at once.
        """
        if self.loop_closed:
            await self.leave()
        elif not self._ending.done():
            await self._wait_for_end()
        if self._ending.done() and not self._ending.cancelled():
            self._ending.result()  # a queue of the user's may have failed
        told, self._failure_told = self._failure_told, True
        if self._sender is not None and not told:
            self._sender.raise_failure()
        return self.summary()

    async def leave(self) -> None:
        """Let go of what is left: the event loop is closed. In most cases that was done as it ended."""
        if self._ending.done():
            return
        self._closed = True
        if self._sender is not None:
            await self._sender.executor.release()
        self._report_left()

    async def _wait_for_end(self) -> None:
        self.check_loop()
        self._closers += 1
        try:
            await asyncio.wait([self._ending])
        except asyncio.CancelledError:
            if self._closers == 1 and not self._ending.done() and not self._ending.cancelling():
                # Nobody waits for it any more: what is left is reported, and nothing goes on behind our back.
                self._ending.cancel()
                await asyncio.wait([self._ending])
            raise
        finally:
            self._closers -= 1

    def _is_a_fork(self) -> bool:
        """Whether all of this was inherited: it, and its connections, are the parent's to end."""
        return os.getpid() != self._process

    def _want_end(self, timeout: float) -> None:
        if not self._wanted_end.done():
            self._closed = True
            self._wanted_end.set_result(timeout)

    def _end_dropped(self) -> None:
        self._dropped = not self._wanted_end.done()
        self._want_end(self._close_timeout)

    async def _end_when_wanted(self) -> None:
        try:
            timeout = await self._wanted_end
        except asyncio.CancelledError:
            if self._is_a_fork():
                raise
            # The event loop is ending, and all tasks with it: this is the last moment for the connections.
            await self._let_go()
            self._closed = True
            self._monitor.all_finished()
            if self._closers:  # called as late as that
                self._report()
            else:
                self._report_left()
            raise
        try:
            # After a drop nobody but the event loop holds this task: by the timers that bound its waits.
            await self._deliver_the_rest(self._loop.time() + timeout)
        except BaseException:  # also a mistake of the queue's: nobody is left to let go later
            await self._let_go()
            raise
        finally:
            self._monitor.all_finished()
            self._report()

    async def _deliver_the_rest(self, deadline: float) -> None:
        notice = self._loop.call_later(_PATIENCE, self._say_what_is_left, deadline)
        try:
            # What the queue would not take in time is counted as left.
            await in_time(self.outbox.drain(), deadline - self._loop.time())
            left = max(0.0, deadline - self._loop.time())
            if self._sender is not None:
                await self._sender.stop(left)
            else:
                await self._queue.close(0)
                await self._queue.flush(left)
                await self._queue.disconnect()
        finally:
            notice.cancel()

    def _say_what_is_left(self, deadline: float) -> None:
        left, seconds = self.summary().left, deadline - self._loop.time()
        if left > 0 and seconds >= 1:
            logger.warning(
                "prefactor: closing waits for %d operations to reach %s, for %.0f s at most (close_timeout)",
                *(left, (self._sender or self._queue).destination, seconds),
            )

    async def _let_go(self) -> None:
        await (self._queue.disconnect() if self._sender is None else self._sender.abort())

    def _report(self) -> None:
        self._reported = True
        atexit.unregister(self._report_left)
        summary = self.summary()
        if self._dropped:
            logger.warning(
                "a client was dropped without close(), so it was closed with %s", summary.in_words()
            )
        elif not summary.complete:
            logger.warning("closed with %s", summary.in_words())

    def _report_left(self) -> None:
        """Say what is lost because nothing was closed, unless that was said, or nothing is."""
        if self._reported or self._is_a_fork():
            return
        self._reported = True
        atexit.unregister(self._report_left)
        left = self.summary().left
        if left > 0:
            logger.warning("ended without close(): %d operations are undelivered", left)
