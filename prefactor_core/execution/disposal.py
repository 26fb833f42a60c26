"""Disposal: telling the queue what became of its deliveries, until it listens, and keeping the account."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from prefactor_core.accounts import ExecutorAccount
from prefactor_core.bounded import Throttle
from prefactor_core.execution.lanes import Resolution
from prefactor_core.execution.retry import Retrying, RetryPolicy
from prefactor_core.operations import Operation, kind_of
from prefactor_core.outage import Outage
from prefactor_core.queue.base import DeadLetter, Delivery, Observe, Queue
from prefactor_core.texts import LONGEST_KEY, one_line

logger = logging.getLogger("prefactor_core.queue")

R = TypeVar("R")

_INTERVAL: Final = 30.0
"""Seconds between two lines about the same type and reason, and about messages that cannot be read."""
_LONGEST_REASON: Final = 1_000
"""Characters that are logged: what a handler raises may say anything, at any length."""


class DeadLetterLog:
    """Logs dead letters with type, key and reason; never what was in them."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._throttle = Throttle(_INTERVAL)
        self._silent = 0

    def write(self, dead_letters: Iterable[DeadLetter[Any]]) -> None:
        """Log the dead letters whose type and reason have not been logged lately."""
        for dead_letter in dead_letters:
            item = dead_letter.item
            name = item.type.value if isinstance(item, Operation) else type(item).__name__
            reason = one_line(dead_letter.reason, _LONGEST_REASON)
            key = item.idempotency_key if isinstance(item, Operation) else None
            if key is not None:
                key = one_line(str(key), LONGEST_KEY)
            self._say((name, reason), f"{name} {key}: {reason}")

    def write_unread(self, partition: int, reason: str) -> None:
        """Log a message that was dead-lettered since it cannot be read, if none has been logged lately."""
        self._say(("unread", ""), f"unread, from partition {partition}: {one_line(reason, _LONGEST_REASON)}")

    def _say(self, kind: tuple[str, str], text: str) -> None:
        if not self._throttle.allows(self._monotonic(), kind):
            self._silent += 1
            return
        more = f" (and {self._silent} more that were not logged)" if self._silent else ""
        logger.warning("dead-lettered: %s%s", text, more)
        self._silent = 0


class Disposal:
    """Settles and dead-letters deliveries at a queue that may be unavailable for a while.

    It counts, and tells ``observe``, once the queue has been told. It retries for ever.
    """

    def __init__(
        self,
        queue: Queue[Any],
        retry: RetryPolicy,
        account: ExecutorAccount,
        outage: Outage,
        observe: Observe | None = None,
    ) -> None:
        self._queue = queue
        self._retry = retry
        self._account = account
        self._outage = outage
        self._observers = Outage(logger, "an observer", "fails, and misses what is disposed of")
        self._observe = observe
        self._log = DeadLetterLog(time.monotonic)
        self.prefetched = 0
        """Deliveries whose fate is known here, and not yet to the queue."""
        self.interrupted: list[Delivery[Any]] = []
        """Deliveries whose disposal was cancelled."""

    async def tell(self, resolution: Resolution[Any]) -> Sequence[Delivery[Any]]:
        """Dispose of a batch, and return the dead letters that were refused.

        When this is cancelled, what is left of the batch stands in ``interrupted``.
        """
        self._account.retried_by_type.update(kind_of(delivery.item) for delivery in resolution.retried)
        dead, revoked = resolution.dead, resolution.revoked
        finished = resolution.finished
        self.prefetched += len(finished) + len(dead) + len(revoked)
        dead_deliveries = [delivery for delivery, _ in dead]
        try:
            if revoked:
                await self._insist(lambda: self._queue.release(revoked))
                self.prefetched -= len(revoked)
                self._account.released += len(revoked)
                revoked = []
            if finished:
                refused = await self._insist(lambda: self._queue.settle(finished))
                self.prefetched -= len(finished)
                finished = []
                self._note_finished(resolution, refused)
            if dead:
                refused = await self._insist(lambda: self._queue.dead_letter(dead))
                self.prefetched -= len(dead)
                self._account.dead_lettered += len(dead) - len(refused)
                self._account.released += len(refused)
                dead_letters = [dead_letter for delivery, dead_letter in dead if delivery not in refused]
                self._log.write(dead_letters)
                self._report([], [], dead_letters)
                dead_deliveries = []
                return refused
        except asyncio.CancelledError:
            self.prefetched -= len(finished) + len(dead_deliveries) + len(revoked)
            # The effects of these have happened; their keys tell the next owner so.
            for delivery in finished:
                delivery.maybe_sent = delivery.maybe_sent or delivery in resolution.settled
            self.interrupted += [*finished, *dead_deliveries, *revoked]
            raise
        return ()

    def close(self) -> None:
        """Log now what was to be logged later of the observers: nothing more is disposed of."""
        self._observers.close()

    def _note_finished(self, resolution: Resolution[Any], refused: Sequence[Delivery[Any]]) -> None:
        """Count what the queue has forgotten; what it refused is another process's."""

        def items(deliveries: list[Delivery[Any]]) -> list[Any]:
            return [delivery.item for delivery in deliveries if delivery not in refused]

        settled, superseded = items(resolution.settled), items(resolution.superseded)
        account = self._account
        account.settled += len(settled)
        account.released += len(refused)
        account.overtaken_by_type.update(map(kind_of, items(resolution.overtaken)))
        account.superseded_by_type.update(map(kind_of, superseded))
        self._report(settled, superseded, [])

    def _report(self, settled: list[Any], superseded: list[Any], dead: list[DeadLetter[Any]]) -> None:
        if self._observe is None:
            return
        try:
            self._observe(settled, superseded, dead)
        except Exception as error:  # noqa: BLE001 -- told
            # Observers are somebody else's code, and what they saw has happened already.
            self._observers.failed(self, error)
        else:
            self._observers.worked(self)

    async def _insist(self, action: Callable[[], Awaitable[R]]) -> R:
        # The queue is somebody else's code; a delivery that it is not told of would come again.
        return await Retrying(action, self._retry, self._outage).insist(action)
