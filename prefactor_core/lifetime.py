"""How a session's operations are delivered, and how that ends: closed, dropped, or left by its event loop."""

import asyncio
import atexit
import contextvars
import logging
import threading
from contextlib import suppress
from typing import Final
from weakref import ReferenceType

from prefactor_core.accounts import ClientStats, CloseSummary
from prefactor_core.exceptions import ClientClosedError
from prefactor_core.forks import FORKS
from prefactor_core.monitoring.termination_monitor import TerminationMonitor
from prefactor_core.operations import Operation
from prefactor_core.queue.base import Queue
from prefactor_core.recording.gate import Gate
from prefactor_core.recording.handover import handover_to
from prefactor_core.senders.base import Sender
from prefactor_core.waiters import in_loop, in_time

logger = logging.getLogger("prefactor_core")

_PATIENCE: Final = 1.0
"""Seconds after which the end says what it waits for: somebody may be waiting for the process to exit."""
_GRACE: Final = 5.0
"""Seconds beyond its own bound after which a wait for another event loop ends: that one does not run."""


class Lifetime:
    """Delivers what is put into a queue, from now until the end, in the event loop that runs now.

    One task waits for the end and carries it out, however it comes: ``end`` (the client is closed),
    ``drop`` (nobody is left to close it), or a cancellation of that task (the event loop ends). Neither this
    object nor anything that it starts holds the client.

    ``ends_by_itself`` if somebody sees to the end as the interpreter exits, so that nobody has to close it.
    """

    def __init__(
        self,
        queue: Queue[Operation],
        sender: Sender,
        monitor: TerminationMonitor,
        close_timeout: float,
        *,
        ends_by_itself: bool = False,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._forks = FORKS.count
        self._sender = sender
        self._monitor = monitor
        self._close_timeout = close_timeout
        self._ends_by_itself = ends_by_itself
        self.gate = Gate(self._refuse, self._loop.is_closed)
        """Lets calls through until the end, or until delivery has failed for good."""
        self.handover = handover_to(queue)
        """The way into the queue."""
        self._ending_began = False
        self._dropped = False
        self._reported = False
        self._failure_told = False
        self._closers = 0
        self._bound = close_timeout
        self._wanted_end: asyncio.Future[float] = self._loop.create_future()
        # A context of its own: the caller's may hold the client, and tasks hold their context.
        self._context = contextvars.Context()
        self._ending = self._loop.create_task(
            self._end_when_wanted(), name="prefactor-end", context=self._context
        )

    async def begin(self) -> None:
        """Begin to send; from now on the event loop cannot end without this object's knowledge."""
        await asyncio.sleep(0)  # the task that waits for the end begins, so that a cancellation reaches it
        if not self._ending_began:
            self._context.run(self._sender.start, self.gate.shut)

    @property
    def loop_closed(self) -> bool:
        """Whether the event loop that all of this belongs to is closed."""
        return self._loop.is_closed()

    @property
    def left_behind(self) -> bool:
        """Whether nothing will be delivered any more: the event loop is closed, or a parent process's."""
        return self.loop_closed or self.is_a_fork

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that all of this belongs to."""
        return self._loop

    async def flush(self, timeout: float) -> bool:
        """Wait until everything put so far is delivered, for ``timeout`` seconds at most, in any event loop.

        Raises as the gate does, before and after.
        """
        self.gate.check(puts=False)
        async with asyncio.timeout(timeout + _GRACE):
            done = await in_loop(self._loop, lambda: self._flush(timeout))
        self.gate.check(puts=False)
        return done

    async def _flush(self, timeout: float) -> bool:
        deadline = self._loop.time() + timeout
        if not await in_time(self.handover.drain(), timeout):
            return False
        return await self._sender.flush(max(0.0, deadline - self._loop.time()))

    def _refuse(self, *, puts: bool) -> None:
        """Raise why no call is taken."""
        self._sender.raise_failure(refused_call=puts)
        if self.is_a_fork:
            raise ClientClosedError(
                "the client belongs to the process that this one was forked from: initialize() it here"
            )
        if self.loop_closed:
            raise ClientClosedError("the client's event loop is closed: initialize() it again to go on")
        raise ClientClosedError("the client is closed: initialize() it again to go on")

    # -- accounts

    def stats(self, open_spans: int = 0) -> ClientStats:
        """Return what has become of everything so far. Can be asked for in any thread."""
        now = self._sender.progress(lambda: self.handover.put_count)
        rest = now.put - now.delivered - now.dead_lettered - sum(now.superseded.values())
        rest -= sum(now.dropped.values())
        sending = min(now.sending, rest)
        return ClientStats(
            put=now.put,
            delivered=now.delivered,
            dead_lettered=now.dead_lettered,
            dropped=now.dropped,
            buffered=rest - sending,
            sending=sending,
            retried=now.retried,
            open_spans=open_spans,
            overtaken=now.overtaken,
            superseded=now.superseded,
        )

    def summary(self) -> CloseSummary:
        """Return what has been delivered, and call everything else left."""
        stats = self.stats()
        return CloseSummary(
            put=stats.put,
            delivered=stats.delivered,
            dead_lettered=stats.dead_lettered,
            dropped=stats.dropped,
            left=stats.buffered + stats.sending,
            unconfirmed=stats.sending if self._sender.unconfirmed else 0,
            overtaken=stats.overtaken,
            superseded=stats.superseded,
        )

    # -- the end

    def end(self, timeout: float) -> None:
        """Begin to end: take nothing more, and deliver what is queued for ``timeout`` seconds at most.

        Can be called in any thread.
        """
        if self.is_a_fork:
            return
        self.gate.shut()
        if self.loop_closed:
            return
        if threading.get_ident() == self._thread:
            self._want_end(timeout)
        else:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._want_end, timeout)

    def drop(self, entrance: ReferenceType[object]) -> None:
        """Begin to end as ``end`` does, in the background, since nobody is left who could call it.

        Called by a finalizer of the entrance: in any thread, amidst anything, or as the interpreter exits.
        """
        if self.is_a_fork:
            return
        if entrance() is not None:
            self._report_left()  # the interpreter exits, and nothing can be delivered any more
            return
        if self._reported:
            return
        if not self._ends_by_itself:
            # The loop may never run again; then the exit of the interpreter is the last moment to say so.
            atexit.register(self._report_left)
        try:
            self._loop.call_soon_threadsafe(self._end_dropped)
        except RuntimeError:  # the loop is closed
            self._report_left()

    async def over(self) -> None:
        """Wait for the end, however it comes."""
        await asyncio.wait([self._ending])

    async def ended(self) -> CloseSummary:
        """Wait for the end and return what came of everything; or, once, raise what has ended delivery.

        Cancelled, the last caller ends it at once.
        """
        if self.is_a_fork:
            return CloseSummary()
        if self.loop_closed:
            await self.leave()
        elif not self._ending.done():
            try:
                async with asyncio.timeout(self._bound + _GRACE):
                    await in_loop(self._loop, self._wait_for_end)
            except TimeoutError:  # that event loop does not run
                return self.summary()
        return self.result()

    def result(self) -> CloseSummary:
        """Return what came of everything by now; or, once, raise what has ended delivery."""
        if self._ending.done() and not self._ending.cancelled():
            self._ending.result()  # a queue of the user's may have failed
        told, self._failure_told = self._failure_told, True
        if not told:
            self._sender.raise_failure()
        return self.summary()

    async def leave(self) -> None:
        """Let go of what is left: the event loop is closed. In most cases that was done as it ended."""
        if self._ending.done() or self.is_a_fork:
            return
        self.gate.shut()
        await self._sender.leave()
        self._report_left()

    async def _wait_for_end(self) -> None:
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

    @property
    def is_a_fork(self) -> bool:
        """Whether all of this was inherited: it, and its connections, are the parent's to end."""
        return FORKS.count != self._forks

    def _want_end(self, timeout: float) -> None:
        if not self._wanted_end.done():
            self._ending_began = True
            self._bound = timeout
            self.gate.shut()
            self._wanted_end.set_result(timeout)

    def _end_dropped(self) -> None:
        self._dropped = not self._wanted_end.done()
        self._want_end(self._close_timeout)

    async def _end_when_wanted(self) -> None:
        try:
            timeout = await self._wanted_end
        except asyncio.CancelledError:
            if self.is_a_fork:
                raise
            # The event loop is ending, and all tasks with it: this is the last moment for the connections.
            self.gate.shut()
            await self._sender.abort()
            self._gone()
            if self._closers:  # called as late as that
                self._report()
            else:
                self._report_left()
            raise
        try:
            # After a drop nobody but the event loop holds this task: by the timers that bound its waits.
            await self._deliver_the_rest(self._loop.time() + timeout)
        except BaseException:  # also a mistake of the queue's: nobody is left to let go later
            await self._sender.abort()
            raise
        finally:
            self._gone()
            self._report()

    async def _deliver_the_rest(self, deadline: float) -> None:
        notice = self._loop.call_later(_PATIENCE, self._say_what_is_left, deadline)
        try:
            # What the queue would not take in time is counted as left.
            await in_time(self.handover.drain(), deadline - self._loop.time())
            await self._sender.stop(max(0.0, deadline - self._loop.time()))
        finally:
            notice.cancel()

    def _say_what_is_left(self, deadline: float) -> None:
        left, seconds = self.summary().left, deadline - self._loop.time()
        if left > 0 and seconds >= 1:
            logger.warning(
                "prefactor: closing waits for %d operations to reach %s, for %.0f s at most (close_timeout)",
                *(left, self._sender.destination, seconds),
            )

    def _gone(self) -> None:
        """Let go of what agents hold: nothing can be done with it any more."""
        self._monitor.all_finished()
        self.gate.let_go()

    def _report(self) -> None:
        self._reported = True
        atexit.unregister(self._report_left)
        summary = self.summary()
        if self._dropped and not self._ends_by_itself:
            logger.warning(
                "a client was dropped without close(), so it was closed with %s", summary.in_words()
            )
        elif not summary.complete:
            logger.warning("closed with %s", summary.in_words())

    def _report_left(self) -> None:
        """Say what is lost because nothing was closed, unless that was said, or nothing is."""
        if self._reported or self.is_a_fork:
            return
        self._reported = True
        atexit.unregister(self._report_left)
        left = self.summary().left
        if left > 0:
            logger.warning("ended without close(): %d operations are undelivered", left)
