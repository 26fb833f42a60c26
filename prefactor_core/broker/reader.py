"""Prefetching from one partition, within its quota; unreadable messages are dead-lettered here."""

import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from prefactor_core.broker.dead_letters import StoredDeadLetter, encode_dead_letter
from prefactor_core.broker.driver import MAX_ATTEMPTS, Message
from prefactor_core.broker.envelope import UnreadableEnvelopeError, decode
from prefactor_core.broker.isolation import IsolatedAttempt, Isolation
from prefactor_core.broker.prefetch import Inbox, OwnedPartition
from prefactor_core.exceptions import BrokerError
from prefactor_core.execution.disposal import DeadLetterLog
from prefactor_core.execution.retry import Retrying, RetryPolicy
from prefactor_core.outage import Outage
from prefactor_core.queue.base import DeadLetter

R = TypeVar("R")

BROKER_RETRY: Final = RetryPolicy(base=0.2, cap=5.0)
"""Backoff while a broker does not do what it is asked. It retries for ever."""

_LOOK: Final = 1.0
"""Seconds after which a full partition is looked at again, whether or not anything was disposed of."""
_CRASHED: Final = "its workers crashed each time they handled it"
_CRASHED_READING: Final = "its workers crashed each time they read it"


class Reader:
    """Prefetches from partitions into an inbox, one call a partition."""

    def __init__(self, inbox: Inbox, outage: Outage) -> None:
        self._inbox = inbox
        self._outage = outage
        self._isolation = Isolation(outage)
        self._log = DeadLetterLog(time.monotonic)
        self.dead_lettered_unread = 0
        """Messages that were dead-lettered unread: no envelopes."""

    async def run(self, owned: OwnedPartition) -> None:
        """Prefetch for as long as the partition is ours."""
        try:
            await self._read(owned)
        finally:
            self._outage.worked(owned)
            self._outage.worked(owned.partition)  # an attempt there may have failed to begin

    async def _read(self, owned: OwnedPartition) -> None:
        retrying = Retrying(owned, BROKER_RETRY, self._outage)
        while owned.reading:
            max_items, max_bytes = owned.room()
            if not max_items:
                await owned.wait_for_change(_LOOK)
                continue
            try:
                messages = await owned.partition.read(max_items, max_bytes)
            except Exception as error:  # noqa: BLE001 -- told, and tried again
                # Also what is no BrokerError: the driver's mistakes must not strand a partition.
                if isinstance(error, BrokerError) and not owned.partition.held:
                    continue
                await retrying.failed(error)
            else:
                retrying.worked()
                await self._take_in(owned, messages)

    async def _take_in(self, owned: OwnedPartition, messages: list[Message]) -> None:
        for message in messages:
            if not owned.reading:
                return  # its next owner begins with what is unsettled
            if owned.partition.isolated:
                await self._take_in_isolated(owned, message)
            else:
                await self._deliver(owned, message)

    async def _take_in_isolated(self, owned: OwnedPartition, message: Message) -> None:
        """Take in a message of an isolated partition; the attempt is recorded before it is even decoded."""
        attempts = await self._insist(owned, lambda: owned.partition.attempts(message))
        if attempts is None:
            return
        attempt = await self._isolation.start(owned, message, alone=attempts > 0)
        try:
            begun = await self._insist(owned, lambda: owned.partition.begin(message))
            if begun is None:
                return
            if begun:
                await self._deliver(owned, message, attempt, attempts)
            elif attempts <= MAX_ATTEMPTS:
                await self._deliver(owned, message, attempt, attempts, dead=True)
            else:
                await self._dead_letter_unread(owned, message, _CRASHED_READING, attempts)
        finally:
            if attempt.delivery is None:
                self._isolation.end(attempt)

    async def _deliver(
        self,
        owned: OwnedPartition,
        message: Message,
        attempt: IsolatedAttempt | None = None,
        crashes: int = 0,
        *,
        dead: bool = False,
    ) -> None:
        """Put a message's operation into the inbox, with the recorded attempt at it if there is one.

        One that crashed too many workers is ``dead``: it is dead-lettered by way of its instance's lane, so
        that its dependents go with it.
        """
        try:
            envelope = decode(message.data)
        except UnreadableEnvelopeError as problem:
            await self._dead_letter_unread(owned, message, f"unreadable: {problem}")
            return
        redelivered = message.redelivered or (envelope.replayed and not envelope.new_key)
        delivery = owned.take(envelope.operation, message, redelivered=redelivered)
        delivery.replayed = envelope.replayed
        delivery.crashes = crashes
        if attempt is not None and dead:
            delivery.dead_letter = DeadLetter(delivery.item, _CRASHED, crashes)
            await attempt.withdraw()  # it was decoded: it is not to blame for a crash now
        elif attempt is not None:
            delivery.attempt = attempt
            attempt.delivery = delivery
        self._inbox.add(delivery)

    async def _dead_letter_unread(
        self, owned: OwnedPartition, message: Message, reason: str, attempts: int = 0
    ) -> None:
        stored = encode_dead_letter(
            StoredDeadLetter.of(message.data, owned.partition.number, reason, attempts, None)
        )
        refused = await self._insist(owned, lambda: owned.partition.dead_letter([(message, stored)]))
        if refused is not None and not refused:
            self.dead_lettered_unread += 1
            self._log.write_unread(owned.partition.number, reason)

    async def _insist(self, owned: OwnedPartition, action: Callable[[], Awaitable[R]]) -> R | None:
        """Repeat what the broker did not do for as long as the partition is ours; ``None`` once it is not."""
        retrying = Retrying(owned, BROKER_RETRY, self._outage)
        while owned.current:
            try:
                result = await action()
            except Exception as error:  # noqa: BLE001 -- told, and tried again
                # Also if the mistake is the driver's: to go on without this message would be out of order.
                if isinstance(error, BrokerError) and not owned.partition.held:
                    break
                await retrying.failed(error)
            else:
                retrying.worked()
                return result
        return None
