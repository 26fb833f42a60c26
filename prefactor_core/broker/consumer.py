"""Consuming: this process's fair share of the partitions, and what is read ahead of them.

One task keeps the share: it joins the fleet, takes free partitions while it owns too few, gives some up
while it owns too many, and lets go of those that were lost. One task a partition reads ahead, within a
quota, so that neither a long partition nor one in trouble takes the room of the others.
"""

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Final, TypeAlias, TypeVar

from prefactor_core.broker.answers import Answers
from prefactor_core.broker.dead_letter import StoredDeadLetter, encode_dead_letter
from prefactor_core.broker.driver import ConsumingEnd, Message, PartitionState
from prefactor_core.broker.inbox import Inbox
from prefactor_core.broker.owned_partition import Disposed, OwnedPartition, Quota
from prefactor_core.broker.reader import BROKER_RETRY, Reader
from prefactor_core.broker.rebalance import Rebalance
from prefactor_core.broker.shares import share_of
from prefactor_core.exceptions import QueueClosedError
from prefactor_core.execution.retry import Tries
from prefactor_core.operations import Operation
from prefactor_core.outage import Outage, describe
from prefactor_core.queue.base import DeadLetter, Delivery

logger = logging.getLogger("prefactor_core.broker")

_ROUND: Final = 1.0
"""Seconds between two looks at the fleet."""
_UNSETTLED_ITEMS: Final = 8_192
_UNSETTLED_BYTES: Final = 32 * 1024 * 1024
"""What one process may have unsettled of all its partitions."""
_LEAVING: Final = 5.0
"""Seconds that what is being carried out has, when its partition is to be given up."""

R = TypeVar("R")
Settle: TypeAlias = Callable[[OwnedPartition, list[Message]], Awaitable[Sequence[Message]]]


class Consumer:
    """Receives deliveries of the partitions that this process owns, and disposes of them.

    Args:
        end: The broker.
        name: What logs call it.
        rng: Where it begins to look for free partitions, so that a fleet does not start a race.
    """

    def __init__(self, end: ConsumingEnd, name: str, rng: random.Random) -> None:
        self._end = end
        self._name = name
        self._rng = rng
        self._owned: dict[int, OwnedPartition] = {}
        self._inbox = Inbox()
        self.outage = Outage(logger, name, "is unavailable, its partitions wait")
        """The broker's, for everything that is tried there again and again."""
        self._rebalance = Rebalance(name, lambda: asyncio.get_running_loop().time())
        self._reader = Reader(self._inbox, self.outage)
        self._answers = Answers(end)
        self._tasks: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._partitions = 0
        self._closed = False
        self._aside: str | None = None
        self._taking_part = False
        self._woken = asyncio.Event()
        self.problem: str | None = "not connected yet"
        """Why no partitions are looked after now, if they are not."""

    @property
    def quarantined(self) -> int:
        """Messages that were dead-lettered unread: no envelopes."""
        return self._reader.quarantined

    @property
    def waiting(self) -> int:
        """Deliveries that were read and not handed out."""
        return len(self._inbox)

    @property
    def owned(self) -> list[int]:
        """The partitions that this process owns now."""
        return sorted(number for number, owned in self._owned.items() if owned.current)

    def oldest(self, partition: int) -> float | None:
        """Return when the oldest operation held here of a partition was made, in seconds since the epoch."""
        owned = self._owned.get(partition)
        return None if owned is None else owned.oldest

    async def receive(self, max_items: int, max_bytes: int) -> list[Delivery[Operation]]:
        """Return the next deliveries, waiting for the first.

        Raises:
            QueueClosedError: It was closed.
        """
        if self._keeper is None and not self._closed:
            self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="prefactor-partitions")
        while True:
            if self._closed:
                raise QueueClosedError("the queue is closed; what waits at the broker stays there")
            taken = self._inbox.take(max_items, max_bytes)
            if taken:
                return taken
            await self._inbox.receivers.wait()

    async def settle(self, deliveries: Sequence[Delivery[Operation]]) -> list[Delivery[Operation]]:
        """Remove deliveries from the broker, and return those that were refused.

        Raises:
            BrokerError: Not all could be removed; to be repeated with the same deliveries.
        """

        async def settle(owned: OwnedPartition, messages: list[Message]) -> Sequence[Message]:
            return await owned.partition.settle(messages)

        refused = await self._dispose(deliveries, settle)
        self._answers.tell("delivered", ((one.item, None) for one in deliveries if _is_done(one)))
        return refused

    async def dead_letter(
        self, letters: Sequence[tuple[Delivery[Operation], DeadLetter[Operation]]]
    ) -> list[Delivery[Operation]]:
        """Set deliveries aside at the broker, and return those that were refused.

        Raises:
            BrokerError: Not all could be set aside; to be repeated with the same letters.
        """
        given_up = {id(delivery.receipt): letter for delivery, letter in letters}

        async def dead_letter_all(owned: OwnedPartition, messages: list[Message]) -> Sequence[Message]:
            number = owned.partition.number
            records: list[tuple[Message, bytes]] = []
            for message in messages:
                letter = given_up[id(message)]
                record = StoredDeadLetter.of(
                    message.data, number, letter.reason, letter.attempts, letter.reply
                )
                records.append((message, encode_dead_letter(record)))
            return await owned.partition.dead_letter(records)

        refused = await self._dispose([delivery for delivery, _ in letters], dead_letter_all)
        self._answers.tell("kept", ((one.item, letter.reason) for one, letter in letters if _is_done(one)))
        return refused

    async def release(self, deliveries: Sequence[Delivery[Operation]]) -> None:
        """Take deliveries back: to be handed out again, or left to the partition's next owner."""
        held = [delivery for delivery in deliveries if isinstance(delivery.receipt, Message)]
        again = [delivery for delivery in held if not delivery.revoked and not self._closed]
        for owned, gone in _by_tenure(d for d in held if d.revoked or self._closed).items():
            owned.forget(gone)
        self._inbox.put_back(again)

    async def depth(self) -> int:
        """Return how many operations are unsettled at the broker.

        Raises:
            BrokerError: The broker is unavailable.
        """
        return await self._end.waiting()

    async def states(self) -> list[PartitionState]:
        """Return what an operator sees of every partition.

        Raises:
            BrokerError: The broker is unavailable.
        """
        return await self._end.states()

    def stand_aside(self, reason: str) -> None:
        """Give all partitions up and leave the fleet, until ``rejoin``. Asking again does nothing.

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
        """Give all partitions up and let go of the broker."""
        self.close()
        for number, owned in self._owned.items():
            if not owned.partition.held:  # since the last look, or amidst a drain
                self._rebalance.lost(number, owned.partition.loss)
        self._rebalance.end(len(self.owned))
        for owned in self._owned.values():
            owned.leave()
        tasks = [*self._tasks, *([self._keeper] if self._keeper is not None else [])]
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                logger.error("consuming from %s failed", self._name, exc_info=result)
        await asyncio.gather(*(self._give_up(owned) for owned in self._owned.values()))
        self.outage.close()
        self._owned.clear()
        self._inbox.clear()
        await self._answers.close()
        await self._end.disconnect()

    # -- keeping a fair share

    async def _keep(self) -> None:
        tries = Tries(self, BROKER_RETRY, self.outage)
        while not self._closed:
            try:
                await self._look()
            except Exception as error:  # noqa: BLE001 -- told, and tried again
                # Also what is no BrokerError: the driver is somebody else's code, and a worker that owns
                # nothing helps nobody.
                self.problem = f"{self._name} is unavailable: {describe(error)}"
                self._rebalance.look(len(self.owned), complete=False)
                await tries.failed(error)
                continue
            tries.worked()
            self.problem = None
            if not self._taking_part and self._aside is None:
                self._taking_part = True
                logger.info("taking part in the fleet of %s", self._name)
            await self._pause()

    async def _pause(self) -> None:
        """Wait for the next look; it is due at once when this process is to stand aside, or to rejoin."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_ROUND):
                await self._woken.wait()
        self._woken.clear()

    async def _look(self) -> None:
        self._let_go_of_lost()
        if self._aside is not None:
            self._release([owned for owned in self._owned.values() if owned.current])
            if not self._owned:
                await self._end.stand_aside()
            self._rebalance.look(0, complete=not self._owned)
            return
        if not self._partitions:
            self._partitions = await self._end.partitions()
        share = share_of(self._partitions, await self._end.fleet())
        for owned in self._owned.values():
            owned.quota = self._quota(share)
        current = [owned for owned in self._owned.values() if owned.current]
        if len(current) > share:
            current.sort(key=lambda owned: owned.items)
            self._release(current[: len(current) - share])
        elif len(current) < share:
            await self._take_more(share - len(current), share)
        self._rebalance.look(len(self.owned), complete=len(self._owned) == len(self.owned) == share)

    def _release(self, all_owned: Iterable[OwnedPartition]) -> None:
        for owned in all_owned:
            owned.leave()
            self._own(self._leave(owned))

    async def _take_more(self, wanted: int, share: int) -> None:
        start = self._rng.randrange(self._partitions)
        for offset in range(self._partitions):
            number = (start + offset) % self._partitions
            if wanted == 0 or self._closed or self._aside is not None:
                return
            if number in self._owned:
                continue
            quota = self._quota(share)
            partition = await self._end.acquire(number, quota.items)
            if partition is None:
                continue
            wanted -= 1
            owned = self._owned[number] = OwnedPartition(partition, quota)
            owned.reader = self._own(self._reader.run(owned))
            self._rebalance.gained(number)

    def _quota(self, share: int) -> Quota:
        share = max(1, share)
        return Quota(max(16, _UNSETTLED_ITEMS // share), max(1, _UNSETTLED_BYTES // share))

    def _let_go_of_lost(self) -> None:
        for number, owned in list(self._owned.items()):
            if not owned.partition.held and not owned.leaving:
                owned.leave()
                self._inbox.forget(owned)
                del self._owned[number]
                if owned.reader is not None:
                    owned.reader.cancel()
                self._own(self._give_up(owned))  # lets go of its connections
                self._rebalance.lost(number, owned.partition.loss)

    async def _leave(self, owned: OwnedPartition) -> None:
        """Give a partition up once what is being carried out of it has ended."""
        deadline = asyncio.get_running_loop().time() + _LEAVING
        self._inbox.forget(owned)
        while owned.items and (left := deadline - asyncio.get_running_loop().time()) > 0:
            await owned.wait_for_change(left)
        loss = None if owned.partition.held else owned.partition.loss
        await self._give_up(owned)
        del self._owned[owned.partition.number]
        if loss is None:
            self._rebalance.released(owned.partition.number)
        else:
            self._rebalance.lost(owned.partition.number, loss)

    async def _give_up(self, owned: OwnedPartition) -> None:
        try:
            await owned.partition.release()
        except Exception as error:  # noqa: BLE001 -- told
            # The driver is somebody else's code; what it did not give up runs out by itself.
            self.outage.failed(owned, error)
            self.outage.worked(owned)  # it is not tried again

    # -- disposing

    async def _dispose(
        self, deliveries: Sequence[Delivery[Operation]], settle: Settle
    ) -> list[Delivery[Operation]]:
        pending = [delivery for delivery in deliveries if isinstance(delivery.receipt, Message)]
        results = await asyncio.gather(
            *(self._dispose_of(owned, own, settle) for owned, own in _by_tenure(pending).items()),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [delivery for delivery in deliveries if delivery.receipt is Disposed.REFUSED]

    async def _dispose_of(
        self, owned: OwnedPartition, own: list[Delivery[Operation]], settle: Settle
    ) -> None:
        messages = [delivery.receipt for delivery in own if isinstance(delivery.receipt, Message)]
        refused = {id(message) for message in await settle(owned, messages)}
        owned.forget([delivery for delivery in own if id(delivery.receipt) in refused], Disposed.REFUSED)
        owned.forget(own)

    # -- tasks

    def _own(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _is_done(delivery: Delivery[Operation]) -> bool:
    return delivery.receipt is Disposed.DONE


def _by_tenure(deliveries: Iterable[Delivery[Operation]]) -> dict[OwnedPartition, list[Delivery[Operation]]]:
    found: defaultdict[OwnedPartition, list[Delivery[Operation]]] = defaultdict(list)
    for delivery in deliveries:
        if isinstance(delivery.owner, OwnedPartition):
            found[delivery.owner].append(delivery)
    return found
