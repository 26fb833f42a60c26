"""A session: everything that lives between a client's ``initialize()`` and its ``close()``.

Here an operation's way is laid: managers -> ``Outbox`` -> ``Queue`` -> (in this process) ``LocalSender``.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from prefactor_core.config import PrefactorCoreConfig
from prefactor_core.exceptions import ClientClosedError, InvalidInputError, WrongEventLoopError
from prefactor_core.identifiers import PfidFactory
from prefactor_core.managers.agent_instance import AgentInstanceManager
from prefactor_core.managers.span import SpanManager
from prefactor_core.monitoring.termination_monitor import TerminationMonitor
from prefactor_core.operations import Operation
from prefactor_core.outbox import Outbox
from prefactor_core.queue.base import Queue

if TYPE_CHECKING:
    from prefactor_core.sender import LocalSender

logger = logging.getLogger("prefactor_core")


@dataclass(frozen=True, slots=True)
class CloseSummary:
    """What became of everything that was put: ``put = delivered + dead_lettered + dropped + left``.

    Attributes:
        put: Operations that the calls on this client made.
        delivered: Those whose effect has happened at the API; with a broker, those that it has confirmed.
        dead_lettered: Those that the API will not take; each was logged with its reason.
        dropped: Those that did not fit into the buffer, by type, and those that a refused token left.
        left: Those that were not delivered in time.
        unconfirmed: Of ``left``, those that were sent to a broker without an answer; they may have arrived.
    """

    put: int = 0
    delivered: int = 0
    dead_lettered: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    left: int = 0
    unconfirmed: int = 0

    @property
    def complete(self) -> bool:
        """Whether everything was delivered."""
        return self.delivered == self.put


@dataclass(frozen=True, slots=True)
class ClientStats:
    """Where everything that was put is now.

    ``put = delivered + dead_lettered + dropped + buffered + sending``, always.

    Attributes:
        put: Operations that the calls on this client made.
        delivered: Those whose effect has happened at the API; with a broker, those that it has confirmed.
        dead_lettered: Those that the API will not take.
        dropped: Those that did not fit into the buffer, by type, and those that a refused token left.
        buffered: Those that wait in the queue.
        sending: Those that the executor has: in flight, waiting for their turn, or for another try; with a
            broker, those that were sent and are not confirmed.
        retried: Tries that came to nothing; one operation may count several times.
        open_spans: Spans that are open.
    """

    put: int = 0
    delivered: int = 0
    dead_lettered: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    buffered: int = 0
    sending: int = 0
    retried: int = 0
    open_spans: int = 0


class Session:
    """One life of a client.

    Args:
        config: The client's configuration.
        queue: Where operations go.
        ids: Makes ids.
        now: Returns the time, with a time zone.
        sdk_header: Returns the SDK header of the moment.
        monitor: Knows which instances are asked to stop.

    Raises:
        InvalidInputError: The queue is closed, or it is emptied here and nothing says how to reach the API.
    """

    def __init__(
        self,
        config: PrefactorCoreConfig,
        queue: Queue[Operation],
        ids: PfidFactory,
        now: Callable[[], datetime],
        sdk_header: Callable[[], str],
        monitor: TerminationMonitor,
    ) -> None:
        if queue.closed:
            raise InvalidInputError("queue", "it is closed: give the client a new one")
        self._loop = asyncio.get_running_loop()
        self._queue = queue
        self._closed = False
        queue.introduce(sdk_header)
        self._outbox = Outbox(queue, self.check)
        self._sender = _local_sender(config, queue, sdk_header, monitor) if queue.local else None
        self._monitor = monitor
        self.instances = AgentInstanceManager(
            self._outbox, ids, now, on_register=monitor.watch, on_finish=self._instance_finished
        )
        self.spans = SpanManager(self._outbox, ids, now, self.instances.start_if_pending)
        if self._sender is not None:
            self._sender.start()

    def check(self) -> None:
        """Raise if a call cannot be taken.

        Raises:
            WrongEventLoopError: The caller runs in another event loop, or in none.
            PrefactorTelemetryFailureError: Delivery has failed for good.
            ClientClosedError: The session is over.
        """
        self.check_loop()
        if self._sender is not None:
            self._sender.raise_failure()
        if self._closed:
            raise ClientClosedError("the client is closed: initialize() it again to go on")

    def check_loop(self) -> None:
        """Raise if the caller does not run in this session's event loop.

        Raises:
            WrongEventLoopError: It does not.
        """
        try:
            running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is not self._loop:
            raise WrongEventLoopError(
                "the client belongs to the event loop that initialised it; from another thread or loop, use "
                "asyncio.run_coroutine_threadsafe(coroutine, that_loop)"
            )

    def _instance_finished(self, instance_id: str) -> None:
        self.spans.instance_finished(instance_id)
        self._monitor.finished(instance_id)

    async def flush(self, timeout: float) -> bool:
        """Wait until everything put so far is delivered, for ``timeout`` seconds at the most."""
        deadline = self._loop.time() + timeout
        try:
            async with asyncio.timeout_at(deadline):
                await self._outbox.drain()
        except TimeoutError:
            return False
        left = max(0.0, deadline - self._loop.time())
        if self._sender is not None:
            return await self._sender.flush(left)
        return await self._queue.flush(left)

    def stats(self) -> ClientStats:
        """Return what has become of everything so far."""
        put = self._outbox.put_count
        dropped = dict(self._queue.dropped)
        sender = self._sender
        if sender is None:
            return self._stats_elsewhere(put, dropped)
        account = sender.account
        if sender.discarded:
            dropped["discarded"] = sender.discarded
        return ClientStats(
            put,
            account.settled,
            account.dead_lettered,
            dropped,
            self._queue.size(),
            sender.held,
            account.retried,
            self.spans.open_spans,
        )

    def _stats_elsewhere(self, put: int, dropped: dict[str, int]) -> ClientStats:
        published = self._queue.published
        if published is None:  # a queue that counts nothing but what waits
            buffered, sending = self._queue.size(), 0
        else:
            buffered, sending = published.buffered, published.unconfirmed
        delivered = put - buffered - sending - sum(dropped.values())
        return ClientStats(put, delivered, 0, dropped, buffered, sending, 0, self.spans.open_spans)

    async def close(self, timeout: float) -> CloseSummary:
        """Deliver what is queued, for ``timeout`` seconds at the most, and end.

        Raises:
            PrefactorTelemetryFailureError: Delivery has failed for good.
        """
        self._closed = True
        try:
            await self._deliver_the_rest(self._loop.time() + timeout)
        except asyncio.CancelledError:
            await (self._queue.disconnect() if self._sender is None else self._sender.abort())
            raise
        finally:
            self._monitor.all_finished()
            summary = self.summary()
            self._report(summary)
        if self._sender is not None:
            self._sender.raise_failure()
        return summary

    async def _deliver_the_rest(self, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await self._outbox.drain()
        except TimeoutError:
            pass  # what the queue would not take in time is counted as left
        left = max(0.0, deadline - self._loop.time())
        if self._sender is not None:
            await self._sender.stop(left)
        else:
            await self._queue.close(0)
            await self._queue.flush(left)
            await self._queue.disconnect()

    def summary(self) -> CloseSummary:
        """Return what has been delivered, and call everything else left."""
        stats = self.stats()
        # Whatever is not known to be elsewhere was left, also what a queue could not take back.
        left = stats.put - stats.delivered - stats.dead_lettered - sum(stats.dropped.values())
        unconfirmed = stats.sending if self._sender is None else 0
        return CloseSummary(stats.put, stats.delivered, stats.dead_lettered, stats.dropped, left, unconfirmed)

    def _report(self, summary: CloseSummary) -> None:
        if summary.complete:
            return
        logger.warning(
            "closed with %d of %d operations delivered: %d dead-lettered, %d dropped, %d left, "
            "%d of those sent without an answer",
            summary.delivered,
            summary.put,
            summary.dead_lettered,
            sum(summary.dropped.values()),
            summary.left,
            summary.unconfirmed,
        )


def _local_sender(
    config: PrefactorCoreConfig,
    queue: Queue[Operation],
    sdk_header: Callable[[], str],
    monitor: TerminationMonitor,
) -> "LocalSender":
    if config.http_config is None:
        raise InvalidInputError(
            "http_config",
            "is missing: operations are sent from this process, which needs api_url and api_token",
        )
    # Imported here since it brings httpx, which imports its own command line's libraries (click, rich) where
    # they are installed: importing prefactor_core costs no agent that, nor one that publishes to a broker.
    from prefactor_core.sender import LocalSender  # noqa: PLC0415

    return LocalSender(
        queue,
        config.http_config,
        config.queue_config,
        sdk_header,
        monitor,
        config.termination_poll_interval,
    )
