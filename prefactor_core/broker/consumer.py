"""Consuming: the partitions that this worker owns, and what it prefetches of them.

One task keeps the assignment: it joins the fleet, acquires free partitions while it owns too few, releases
some while it owns too many, and drops those that were lost. One task a partition prefetches, within a quota,
so that neither a long partition nor one in trouble takes the room of the others.
"""

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Final, TypeAlias

from prefactor_core.broker.answers import AnswerSender
from prefactor_core.broker.assignment import Rebalance, assignment_size
from prefactor_core.broker.dead_letters import StoredDeadLetter, encode_dead_letter
from prefactor_core.broker.driver import ConsumingEnd, Message, PartitionState
from prefactor_core.broker.prefetch import Disposed, Inbox, OwnedPartition, Quota
from prefactor_core.broker.reader import BROKER_RETRY, Reader
from prefactor_core.exceptions import QueueClosedError
from prefactor_core.execution.retry import Retrying
from prefactor_core.operations import Operation
from prefactor_core.outage import Outage, describe
from prefactor_core.queue.base import DeadLetter, Delivery
from prefactor_core.waiters import in_time

logger = logging.getLogger("prefactor_core.broker")

_ROUND: Final = 1.0
"""Seconds between two looks at the fleet."""
_UNSETTLED_ITEMS: Final = 8_192
_UNSETTLED_BYTES: Final = 32 * 1024 * 1024
"""What one process may prefetch of all its partitions."""
_RELEASE_SECONDS: Final = 5.0
"""For what is in flight, when its partition is to be released."""

Deliveries: TypeAlias = list[Delivery[Operation]]
Settle: TypeAlias = Callable[[OwnedPartition, list[Message]], Awaitable[Sequence[Message]]]


class Consumer:
    """Receives deliveries of the partitions that this process owns, and disposes of them.

    ``rng`` chooses where to begin to look for free partitions, so that the workers of a fleet do not race.
    """

    def __init__(self, end: ConsumingEnd, name: str, rng: random.Random) -> None:
        self._end = end
        self._name = name
        self._rng = rng
        self._owned: dict[int, OwnedPartition] = {}
        self._inbox = Inbox()
        self.outage = Outage(logger, name, "is unavailable; its partitions wait")
        """The broker's, for everything that is retried there."""
        self._rebalance = Rebalance(name, lambda: asyncio.get_running_loop().time())
        self._reader = Reader(self._inbox, self.outage)
        self._answers = AnswerSender(end)
        self._tasks: set[asyncio.Task[None]] = set()
        self._assigning: asyncio.Task[None] | None = None
        self._partitions = 0
        self._closed = False
        self._aside: str | None = None
        self._taking_part = False
        self._woken = asyncio.Event()
        self.problem: str | None = "not connected yet"
        """Why no partitions are looked after now, if they are not."""

    @property
    def dead_lettered_unread(self) -> int:
        """Messages that were dead-lettered unread: no envelopes."""
        return self._reader.dead_lettered_unread

    @property
    def waiting(self) -> int:
        """Deliveries that were read and not handed out."""
        return len(self._inbox)

    @property
    def owned(self) -> list[int]:
        """The partitions that this process owns now."""
        return sorted(number for number, owned in self._owned.items() if owned.current)

    def oldest(self, partition: int) -> float | None:
        """Return when a partition's oldest prefetched operation was made, in seconds since the epoch."""
        owned = self._owned.get(partition)
        return None if owned is None else owned.oldest

    async def receive(self, max_items: int, max_bytes: int) -> Deliveries:
        """As ``BrokerQueue.receive``."""
        if self._assigning is None and not self._closed:
            loop = asyncio.get_running_loop()
            self._assigning = loop.create_task(self._keep_assignment(), name="prefactor-partitions")
        while True:
            if self._closed:
                raise QueueClosedError("the queue is closed; what waits at the broker stays there")
            taken = self._inbox.take(max_items, max_bytes)
            if taken:
                return taken
            await self._inbox.receivers.wait()

    async def settle(self, deliveries: Sequence[Delivery[Operation]]) -> Deliveries:
        """As ``BrokerQueue.settle``."""
        refused = await self._dispose(deliveries, lambda owned, messages: owned.partition.settle(messages))
        self._answers.send("delivered", ((one.item, None) for one in deliveries if _is_done(one)))
        return refused

    async def dead_letter(
        self, dead: Sequence[tuple[Delivery[Operation], DeadLetter[Operation]]]
    ) -> Deliveries:
        """As ``BrokerQueue.dead_letter``."""
        reasons = {id(delivery.receipt): why for delivery, why in dead}

        async def dead_letter(owned: OwnedPartition, messages: list[Message]) -> Sequence[Message]:
            stored: list[tuple[Message, bytes]] = []
            for message in messages:
                why, number = reasons[id(message)], owned.partition.number
                one = StoredDeadLetter.of(message.data, number, why.reason, why.attempts, why.reply)
                stored.append((message, encode_dead_letter(one)))
            return await owned.partition.dead_letter(stored)

        refused = await self._dispose([delivery for delivery, _ in dead], dead_letter)
        self._answers.send("kept", ((one.item, why.reason) for one, why in dead if _is_done(one)))
        return refused

    async def release(self, deliveries: Sequence[Delivery[Operation]]) -> None:
        """As ``BrokerQueue.release``."""
        pending = [delivery for delivery in deliveries if isinstance(delivery.receipt, Message)]
        again = [delivery for delivery in pending if not delivery.revoked and not self._closed]
        for owned, gone in _by_partition(d for d in pending if d.revoked or self._closed).items():
            owned.forget(gone)
        self._inbox.put_back(again)

    async def depth(self) -> int:
        """Return how many operations are unsettled at the broker."""
        return await self._end.backlog()

    async def states(self) -> list[PartitionState]:
        """Return what an operator sees of every partition."""
        return await self._end.states()

    def stand_aside(self, reason: str) -> None:
        """Release all partitions and leave the fleet, until ``rejoin``. Asking again does nothing.

        What was handed out and is not disposed of within a few seconds is revoked.

        Args:
            reason: Why this process cannot handle operations now, for the log.
        """
        if self._aside is None:
            self._aside = reason
            self._taking_part = False
            self._woken.set()
            logger.warning(
                "standing aside from %s, other workers take its partitions: %s", self._name, reason
            )

    def rejoin(self) -> None:
        """Take part in the fleet again."""
        self._aside = None
        self._woken.set()

    @property
    def aside(self) -> bool:
        """Whether this process stands aside."""
        return self._aside is not None

    def close(self) -> None:
        """Hand out nothing more, and read nothing more. What was handed out can still be disposed of."""
        self._closed = True
        for owned in self._owned.values():
            owned.close()
        self._inbox.receivers.wake_all()

    async def disconnect(self) -> None:
        """Release all partitions and disconnect."""
        self.close()
        for number, owned in self._owned.items():
            if not owned.partition.held:  # since the last look, or while draining
                self._rebalance.lost(number, owned.partition.loss)
        self._rebalance.end(len(self.owned))
        for owned in self._owned.values():
            owned.begin_release()
        tasks = [*self._tasks, *([self._assigning] if self._assigning is not None else [])]
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                logger.error("consuming from %s failed", self._name, exc_info=result)
        await asyncio.gather(*(self._release(owned) for owned in self._owned.values()))
        self.outage.close()
        self._owned.clear()
        self._inbox.clear()
        await self._answers.close()
        await self._end.disconnect()

    # -- keeping the assignment

    async def _keep_assignment(self) -> None:
        retrying = Retrying(self, BROKER_RETRY, self.outage)
        while not self._closed:
            try:
                await self._look()
            except Exception as error:  # noqa: BLE001 -- told, and tried again
                # Also what is no BrokerError: the driver is somebody else's code, and a worker without
                # partitions helps nobody.
                self.problem = f"{self._name} is unavailable: {describe(error)}"
                self._rebalance.look(len(self.owned), complete=False)
                await retrying.failed(error)
                continue
            retrying.worked()
            self.problem = None
            if not self._taking_part and self._aside is None:
                self._taking_part = True
                logger.info("taking part in the fleet of %s", self._name)
            # The next look is due at once when this process is to stand aside, or to rejoin.
            await in_time(self._woken.wait(), _ROUND)
            self._woken.clear()

    async def _look(self) -> None:
        self._drop_lost()
        if self._aside is not None:
            self._begin_release([owned for owned in self._owned.values() if owned.current])
            if not self._owned:
                await self._end.stand_aside()
            self._rebalance.look(0, complete=not self._owned)
            return
        if not self._partitions:
            self._partitions = await self._end.partitions()
        wanted = assignment_size(self._partitions, await self._end.fleet())
        quota = _quota(wanted)
        for owned in self._owned.values():
            owned.quota = quota
        current = [owned for owned in self._owned.values() if owned.current]
        if len(current) > wanted:
            current.sort(key=lambda owned: owned.items)
            self._begin_release(current[: len(current) - wanted])
        elif len(current) < wanted:
            await self._acquire(wanted - len(current), quota)
        self._rebalance.look(len(self.owned), complete=len(self._owned) == len(self.owned) == wanted)

    def _begin_release(self, all_owned: Iterable[OwnedPartition]) -> None:
        for owned in all_owned:
            owned.begin_release()
            self._own(self._finish_release(owned))

    async def _acquire(self, wanted: int, quota: Quota) -> None:
        start = self._rng.randrange(self._partitions)
        for offset in range(self._partitions):
            number = (start + offset) % self._partitions
            if wanted == 0 or self._closed or self._aside is not None:
                return
            if number in self._owned:
                continue
            partition = await self._end.acquire(number, quota.items)
            if partition is None:
                continue
            wanted -= 1
            owned = self._owned[number] = OwnedPartition(partition, quota)
            owned.reader = self._own(self._reader.run(owned))
            self._rebalance.gained(number)

    def _drop_lost(self) -> None:
        for number, owned in list(self._owned.items()):
            if not owned.partition.held and not owned.releasing:
                owned.begin_release()
                self._inbox.forget(owned)
                del self._owned[number]
                if owned.reader is not None:
                    owned.reader.cancel()
                self._own(self._release(owned))  # closes its connections
                self._rebalance.lost(number, owned.partition.loss)

    async def _finish_release(self, owned: OwnedPartition) -> None:
        """Release a partition once what is in flight of it has ended."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + _RELEASE_SECONDS
        self._inbox.forget(owned)
        while owned.items and (left := deadline - clock()) > 0:
            await owned.wait_for_change(left)
        loss = None if owned.partition.held else owned.partition.loss
        await self._release(owned)
        del self._owned[owned.partition.number]
        if loss is None:
            self._rebalance.released(owned.partition.number)
        else:
            self._rebalance.lost(owned.partition.number, loss)

    async def _release(self, owned: OwnedPartition) -> None:
        try:
            await owned.partition.release()
        except Exception as error:  # noqa: BLE001 -- told
            # The driver is somebody else's code; a lease that it did not release runs out.
            self.outage.failed(owned, error)
            self.outage.worked(owned)  # it is not retried

    # -- disposing

    async def _dispose(self, deliveries: Sequence[Delivery[Operation]], settle: Settle) -> Deliveries:
        pending = [delivery for delivery in deliveries if isinstance(delivery.receipt, Message)]

        async def dispose(owned: OwnedPartition, own: Deliveries) -> None:
            messages = [delivery.receipt for delivery in own if isinstance(delivery.receipt, Message)]
            refused = {id(message) for message in await settle(owned, messages)}
            owned.forget([delivery for delivery in own if id(delivery.receipt) in refused], Disposed.REFUSED)
            owned.forget(own)

        results = await asyncio.gather(
            *(dispose(owned, own) for owned, own in _by_partition(pending).items()), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [delivery for delivery in deliveries if delivery.receipt is Disposed.REFUSED]

    # -- tasks

    def _own(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _quota(wanted: int) -> Quota:
    wanted = max(1, wanted)
    return Quota(max(16, _UNSETTLED_ITEMS // wanted), max(1, _UNSETTLED_BYTES // wanted))


def _is_done(delivery: Delivery[Operation]) -> bool:
    return delivery.receipt is Disposed.DONE


def _by_partition(deliveries: Iterable[Delivery[Operation]]) -> dict[OwnedPartition, Deliveries]:
    found: defaultdict[OwnedPartition, Deliveries] = defaultdict(list)
    for delivery in deliveries:
        if isinstance(delivery.owner, OwnedPartition):
            found[delivery.owner].append(delivery)
    return found
