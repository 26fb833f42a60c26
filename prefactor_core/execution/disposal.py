"""Disposal: telling the queue what became of its deliveries, until it listens, and keeping the account."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias, TypeVar

from prefactor_core.accounts import ExecutorAccount
from prefactor_core.execution.dead_letter_log import DeadLetterLog
from prefactor_core.execution.lanes import Resolution
from prefactor_core.execution.retry import RetryPolicy, Tries
from prefactor_core.operations import kind_of
from prefactor_core.outage import Outage
from prefactor_core.queue.base import DeadLetter, Delivery, Queue

logger = logging.getLogger("prefactor_core.queue")

R = TypeVar("R")

Observe: TypeAlias = Callable[[Sequence[Any], Sequence[DeadLetter[Any]]], None]
"""Told the items that were settled, and the dead letters."""


class Disposal:
    """Settles and dead-letters deliveries at a queue that may be unavailable for a while.

    It counts, and tells ``observe``, once the queue has been told. There is no last try.
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
        self.held = 0
        """Deliveries whose fate is known here, and not yet to the queue."""
        self.interrupted: list[Delivery[Any]] = []
        """Deliveries whose disposal was cancelled."""

    async def tell(self, resolution: Resolution[Any]) -> Sequence[Delivery[Any]]:
        """Dispose of a batch, and return the dead letters that were refused.

        When this is cancelled, what is left of the batch stands in ``interrupted``.
        """
        self._account.retried_by_type.update(kind_of(delivery.item) for delivery in resolution.retried)
        settled, dead, revoked = resolution.settled, resolution.dead, resolution.revoked
        self.held += len(settled) + len(dead) + len(revoked)
        dead_deliveries = [delivery for delivery, _ in dead]
        try:
            if revoked:
                await self._insist(lambda: self._queue.release(revoked))
                self.held -= len(revoked)
                self._account.released += len(revoked)
                revoked = []
            if settled:
                refused = await self._insist(lambda: self._queue.settle(settled))
                self.held -= len(settled)
                self._account.settled += len(settled) - len(refused)
                self._account.overtaken += resolution.overtaken
                self._account.released += len(refused)
                self._report([delivery.item for delivery in settled if delivery not in refused], [])
                settled = []
            if dead:
                refused = await self._insist(lambda: self._queue.dead_letter(dead))
                self.held -= len(dead)
                self._account.dead_lettered += len(dead) - len(refused)
                self._account.released += len(refused)
                letters = [letter for delivery, letter in dead if delivery not in refused]
                self._log.write(letters)
                self._report([], letters)
                dead_deliveries = []
                return refused
        except asyncio.CancelledError:
            self.held -= len(settled) + len(dead_deliveries) + len(revoked)
            # The effects of these have happened; whoever gets them again finds that out by their keys.
            for delivery in settled:
                delivery.maybe_sent = True
            self.interrupted += [*settled, *dead_deliveries, *revoked]
            raise
        return ()

    def close(self) -> None:
        """Log now what was to be logged later of the observers: nothing more is disposed of."""
        self._observers.close()

    def _report(self, settled: list[Any], dead: list[DeadLetter[Any]]) -> None:
        if self._observe is None:
            return
        try:
            self._observe(settled, dead)
        except Exception as error:  # noqa: BLE001 -- told
            # Observers are somebody else's code, and what they saw has happened already.
            self._observers.failed(self, error)
        else:
            self._observers.worked(self)

    async def _insist(self, action: Callable[[], Awaitable[R]]) -> R:
        # The queue is somebody else's code; a delivery that it is not told of would come again.
        return await Tries(action, self._retry, self._outage).insist(action)
